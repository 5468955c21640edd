//! Checks that the scans of a JPEG hold the data of all their blocks: Huffman decoding without the coefficients.
//!
//! Only the number of bits per block matters. In a progressive file, it depends on which coefficients are already nonzero,
//! so one bit is kept for each coefficient.
//!
//! Source: ITU-T T.81, sections F.2 (sequential) and G.2 (progressive).

use super::huffman::{Bits, Table, Tables};
use super::{BASELINE, EXTENDED, HUFFMAN_TABLES, PROGRESSIVE, RESTART_INTERVAL, SCAN, Segment, Segments};

/// The maximum number of bytes between a scan's last block and the next marker. Some encoders leave a few stray bytes.
const MOST_SURPLUS: usize = 16;

/// Fails with what is wrong with the data and what to do. Returns `Ok` for headers that it cannot read: the decoder decides.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut picture = Picture::default();
    let mut segments = Segments::new(bytes);
    while let Some(Segment { marker, data, behind }) = segments.advance()? {
        let understood = match marker {
            BASELINE | EXTENDED | PROGRESSIVE => picture.frame(marker, data),
            HUFFMAN_TABLES => picture.tables.define(data),
            RESTART_INTERVAL => {
                data.first_chunk().map(|&bytes| picture.interval = usize::from(u16::from_be_bytes(bytes)))
            }
            SCAN => match picture.scan(data, behind) {
                Some(result) => Some(result?),
                None => None,
            },
            _ => Some(()),
        };
        if understood.is_none() {
            return Ok(());
        }
    }
    if picture.components.iter().any(|component| !component.scanned) {
        return Err("this JPEG file is truncated: it lacks a part of its picture data; copy it again".into());
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Picture {
    progressive: bool,
    components: Vec<Component>,
    /// Units of interleaved components per row and per column.
    units: [usize; 2],
    tables: Tables,
    /// Units between two restart markers; 0 if the file has no restart markers.
    interval: usize,
}

#[derive(Debug)]
struct Component {
    id: u8,
    /// Blocks per unit of interleaved components.
    blocks_in_unit: usize,
    /// Blocks per row and per column.
    blocks: [usize; 2],
    /// One bit mask per block of a progressive picture: which coefficients are nonzero.
    nonzero: Vec<u64>,
    scanned: bool,
}

/// A component of a scan and its tables; `None` if the file does not define a table.
struct Part<'a> {
    component: usize,
    dc: Option<&'a Table>,
    ac: Option<&'a Table>,
}

/// The coefficients that a scan holds, and whether it refines them.
#[derive(Clone, Copy)]
struct Band {
    /// The first and the last coefficient (inclusive).
    first: u32,
    last: u32,
    /// Whether the scan adds a bit to coefficients of an earlier scan.
    refines: bool,
}

impl Picture {
    /// Reads a frame header; `None` if it is invalid.
    fn frame(&mut self, marker: u8, data: &[u8]) -> Option<()> {
        let (&[_, h1, h0, w1, w0, count], parts) = data.split_first_chunk::<6>()?;
        let size = [u16::from_be_bytes([w1, w0]), u16::from_be_bytes([h1, h0])].map(usize::from);
        let parts = parts.as_chunks::<3>().0.get(..usize::from(count))?;
        let sampling = |part: &[u8; 3]| [usize::from(part[1] >> 4), usize::from(part[1] & 15)];
        let most = parts.iter().map(sampling).reduce(|[a, b], [c, d]| [a.max(c), b.max(d)])?;
        if size.contains(&0) || parts.iter().map(sampling).any(|[h, v]| h == 0 || v == 0) {
            return None;
        }
        self.progressive = marker == PROGRESSIVE;
        self.units = [0, 1].map(|axis| size[axis].div_ceil(8 * most[axis]));
        self.components = parts
            .iter()
            .map(|part| {
                let sampling = sampling(part);
                let blocks = [0, 1].map(|axis| (size[axis] * sampling[axis]).div_ceil(most[axis]).div_ceil(8));
                let nonzero = if self.progressive { vec![0; blocks[0] * blocks[1]] } else { Vec::new() };
                Component { id: part[0], blocks_in_unit: sampling[0] * sampling[1], blocks, nonzero, scanned: false }
            })
            .collect();
        Some(())
    }

    /// Checks the data of a scan; `None` if its header is invalid.
    fn scan(&mut self, header: &[u8], data: &[u8]) -> Option<Result<(), String>> {
        let (&count, rest) = header.split_first()?;
        let (parts, rest) = rest.split_at_checked(2 * usize::from(count))?;
        let &[first, last, bits] = rest.first_chunk::<3>()?;
        let band = Band { first: u32::from(first), last: u32::from(last.min(63)), refines: bits >> 4 > 0 };
        let parts = parts.as_chunks::<2>().0.iter();
        let parts: Option<Vec<Part>> = parts
            .map(|&[id, numbers]| {
                let component = self.components.iter().position(|component| component.id == id)?;
                let dc = self.tables.dc.get(usize::from(numbers >> 4))?.as_ref();
                let ac = self.tables.ac.get(usize::from(numbers & 15))?.as_ref();
                Some(Part { component, dc, ac })
            })
            .collect();
        let parts = parts?;
        let alone = parts.len() == 1;
        if parts.is_empty() || self.progressive && band.first > 0 && !alone {
            return None;
        }
        let needs_dc = !self.progressive || band.first == 0 && !band.refines;
        let needs_ac = !self.progressive || band.first > 0;
        if parts.iter().any(|part| needs_dc && part.dc.is_none() || needs_ac && part.ac.is_none()) {
            return Some(Err(
                "this JPEG file lacks Huffman tables for a part of its picture data; copy it again".into()
            ));
        }
        let [wide, high] = if alone { self.components[parts[0].component].blocks } else { self.units };
        let mut nonzero =
            if alone { std::mem::take(&mut self.components[parts[0].component].nonzero) } else { Vec::new() };

        let mut bits = Bits::new(data);
        let (mut run, units) = (0, wide * high);
        let mut fault = None;
        for unit in 0..units {
            if self.interval > 0 && unit > 0 && unit % self.interval == 0 {
                fault = Fault::of(bits.surplus());
                bits.restart();
                run = 0;
            }
            for part in &parts {
                let blocks = if alone { 1 } else { self.components[part.component].blocks_in_unit };
                for _ in 0..blocks {
                    match (self.progressive, band) {
                        (false, _) => sequential(&mut bits, part.dc?, part.ac?),
                        (true, Band { first: 0, refines: true, .. }) => bits.skip(1),
                        (true, Band { first: 0, .. }) => dc(&mut bits, part.dc?),
                        (true, band) => {
                            let (table, nonzero) = (part.ac?, nonzero.get_mut(unit)?);
                            if band.refines {
                                refined(&mut bits, table, band, &mut run, nonzero);
                            } else {
                                begun(&mut bits, table, band, &mut run, nonzero);
                            }
                        }
                    }
                }
            }
            fault = fault.or(Fault::in_codes(&bits));
            if let Some(fault) = fault {
                return Some(Err(fault.explain(unit, units)));
            }
        }
        if let Some(fault) = Fault::of(bits.surplus()) {
            return Some(Err(fault.explain(units, units)));
        }
        let scanned: Vec<usize> = parts.iter().map(|part| part.component).collect();
        for component in scanned {
            self.components[component].scanned = true;
            if alone {
                self.components[component].nonzero = std::mem::take(&mut nonzero);
            }
        }
        Some(Ok(()))
    }
}

/// An error in a scan.
#[derive(Clone, Copy)]
enum Fault {
    Ended,
    Invalid,
    Surplus(usize),
}

impl Fault {
    fn of(surplus: usize) -> Option<Self> {
        (surplus > MOST_SURPLUS).then_some(Self::Surplus(surplus))
    }

    fn in_codes(bits: &Bits) -> Option<Self> {
        let ended = bits.ended.then_some(Self::Ended);
        ended.or(bits.invalid.then_some(Self::Invalid))
    }

    fn explain(self, unit: usize, units: usize) -> String {
        let percent = 100 * unit / units;
        match self {
            Self::Ended => {
                format!("this JPEG file's picture data ends too early, after {percent} % of a scan; copy it again")
            }
            Self::Invalid => {
                format!("this JPEG file's picture data is damaged after {percent} % of a scan; copy it again")
            }
            Self::Surplus(bytes) => format!(
                "this JPEG file has {bytes} bytes more picture data than its picture needs: data before them is damaged; copy it \
                 again"
            ),
        }
    }
}

/// Skips a DC coefficient: its number of bits, then the bits.
fn dc(bits: &mut Bits, table: &Table) {
    let size = bits.symbol(table);
    if size > 16 {
        bits.invalid = true;
    }
    bits.skip(size.min(16));
}

/// Skips a block of a sequential scan.
fn sequential(bits: &mut Bits, dc_table: &Table, ac_table: &Table) {
    dc(bits, dc_table);
    let mut at = 1;
    while at < 64 {
        let symbol = bits.symbol(ac_table);
        let (zeros, size) = (symbol >> 4, symbol & 15);
        if size == 0 && zeros < 15 {
            break;
        }
        bits.skip(size);
        at += zeros + 1;
    }
}

/// Skips the band of a block in a first scan. `run` is the number of following blocks without coefficients.
fn begun(bits: &mut Bits, table: &Table, band: Band, run: &mut u32, nonzero: &mut u64) {
    if *run > 0 {
        *run -= 1;
        return;
    }
    let mut at = band.first;
    while at <= band.last {
        let symbol = bits.symbol(table);
        let (zeros, size) = (symbol >> 4, symbol & 15);
        if size == 0 && zeros < 15 {
            *run = (1 << zeros) - 1 + bits.number(zeros);
            return;
        }
        at += zeros;
        if size > 0 && at < 64 {
            bits.skip(size);
            *nonzero |= 1 << at;
        }
        at += 1;
    }
}

/// Skips the band of a block in a refinement scan: one bit per nonzero coefficient, and the new coefficients.
fn refined(bits: &mut Bits, table: &Table, band: Band, run: &mut u32, nonzero: &mut u64) {
    let mut at = band.first;
    while *run == 0 && at <= band.last {
        let symbol = bits.symbol(table);
        let (mut zeros, size) = (symbol >> 4, symbol & 15);
        if size == 0 && zeros < 15 {
            *run = (1 << zeros) + bits.number(zeros);
            break;
        }
        bits.skip(u32::from(size > 0)); // the sign
        while at <= band.last {
            if *nonzero >> at & 1 > 0 {
                bits.skip(1);
            } else if zeros == 0 {
                break;
            } else {
                zeros -= 1;
            }
            at += 1;
        }
        if size > 0 && at <= band.last {
            *nonzero |= 1 << at;
        }
        at += 1;
    }
    if *run > 0 {
        if at <= band.last {
            let rest = u64::MAX >> (63 - band.last) & u64::MAX << at;
            bits.skip((*nonzero & rest).count_ones());
        }
        *run -= 1;
    }
}
