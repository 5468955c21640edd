//! Reads the first directory of a TIFF file.

use std::io::{self, Read, Seek, SeekFrom};

/// Tags, named as in the TIFF 6.0, TIFF/EP and DNG specifications.
pub(in crate::pixels) const NEW_SUBFILE_TYPE: u16 = 254;
pub(in crate::pixels) const PHOTOMETRIC_INTERPRETATION: u16 = 262;
pub(in crate::pixels) const PLANAR_CONFIGURATION: u16 = 284;
pub(in crate::pixels) const TILE_WIDTH: u16 = 322;
pub(in crate::pixels) const SUB_IFDS: u16 = 330;
pub(in crate::pixels) const DNG_VERSION: u16 = 50706;

/// The first value of a field, if it is stored in the directory itself; `None` if there is no such field.
pub(in crate::pixels) fn field(bytes: &[u8], tag: u16) -> Option<u32> {
    let big = bytes.starts_with(b"MM");
    let short = |at: usize| {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes = *bytes.get(at..)?.first_chunk()?;
        Some(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let directory = long(4)? as usize;
    let fields = usize::from(short(directory)?);
    let field = (0..fields).map(|field| directory.saturating_add(2 + 12 * field)).find(|&at| short(at) == Some(tag))?;
    match short(field.saturating_add(2))? {
        3 => short(field.saturating_add(8)).map(u32::from),
        _ => long(field.saturating_add(8)),
    }
}

/// Where the first directory stores how colours are to be interpreted, and the two bytes of "black is zero". `None` without such a field.
///
/// # Errors
/// The reader's; the file is then at its start or damaged.
pub(in crate::pixels) fn photometric_place(file: &mut (impl Read + Seek)) -> io::Result<Option<(u64, [u8; 2])>> {
    let mut head = [0; 16];
    file.rewind()?;
    file.read_exact(&mut head[..8])?;
    let big = head.starts_with(b"MM");
    let number = |bytes: &[u8]| {
        let mut all = [0; 8];
        if big {
            all[8 - bytes.len()..].copy_from_slice(bytes);
            u64::from_be_bytes(all)
        } else {
            all[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(all)
        }
    };
    let long = number(&head[2..4]) == 43; // BigTIFF
    let (mut place, count_length, field_length, value_at) = if long {
        file.read_exact(&mut head[8..])?;
        (number(&head[8..16]), 8, 20, 12)
    } else {
        (number(&head[4..8]), 2, 12, 8)
    };
    let mut count = [0; 8];
    file.seek(SeekFrom::Start(place))?;
    file.read_exact(&mut count[..count_length])?;
    place = place.saturating_add(count_length as u64);
    let mut found = None;
    for _ in 0..number(&count[..count_length]).min(u64::from(u16::MAX)) {
        let mut field = [0; 20];
        file.read_exact(&mut field[..field_length])?;
        if number(&field[..2]) == u64::from(PHOTOMETRIC_INTERPRETATION) {
            found = Some((place + value_at, if big { [0, 1] } else { [1, 0] }));
            break;
        }
        place = place.saturating_add(field_length as u64);
    }
    file.rewind()?;
    Ok(found)
}
