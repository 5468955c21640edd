//! Reads the first directory of a TIFF file.

/// Tags, named as in the TIFF 6.0, TIFF/EP and DNG specifications.
pub(in crate::pixels) const NEW_SUBFILE_TYPE: u16 = 254;
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
