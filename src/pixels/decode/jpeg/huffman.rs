//! Huffman tables and a bit reader for scans.

/// The number of bits that one table lookup resolves.
const LOOK: usize = 9;

/// The codes of one table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Indexed by the next [`LOOK`] bits: the code's length in the high byte and its symbol in the low byte; 0 for a longer code.
    fast: Vec<u16>,
    /// For each length, one past the last code, aligned to 16 bits.
    limits: [u32; 17],
    /// For each length, what to add to a code to get the index of its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// `counts`: the number of codes of 1 to 16 bits. `None` if they do not form a prefix code.
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut table = Self { fast: vec![0; 1 << LOOK], limits: [0; 17], offsets: [0; 17], symbols: symbols.to_vec() };
        let (mut code, mut index) = (0u32, 0usize);
        for (length, &count) in (1usize..).zip(counts) {
            table.offsets[length] = index as i32 - code as i32;
            for _ in 0..count {
                if length <= LOOK {
                    let from = (code as usize) << (LOOK - length);
                    let entry = (length as u16) << 8 | u16::from(*symbols.get(index)?);
                    table.fast.get_mut(from..from + (1 << (LOOK - length)))?.fill(entry);
                }
                code += 1;
                index += 1;
            }
            if code > 1 << length {
                return None;
            }
            table.limits[length] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// The length and the symbol of a code longer than [`LOOK`] bits, at the start of 16 bits.
    fn slow(&self, bits: u32) -> Option<(u32, u8)> {
        let length = (LOOK + 1..17).find(|&length| bits < self.limits[length])?;
        let index = (bits >> (16 - length)) as i32 + self.offsets[length];
        Some((length as u32, *self.symbols.get(usize::try_from(index).ok()?)?))
    }
}

/// The defined tables, by number.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) dc: [Option<Table>; 4],
    pub(super) ac: [Option<Table>; 4],
}

impl Tables {
    /// Reads a DHT segment; stops with `None` if it is malformed.
    pub(super) fn define(&mut self, mut data: &[u8]) -> Option<()> {
        while let Some((&kind, rest)) = data.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let (symbols, rest) = rest.split_at_checked(counts.iter().map(|&count| usize::from(count)).sum())?;
            let tables = if kind >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(kind & 15))? = Table::new(counts, symbols);
            data = rest;
        }
        Some(())
    }

    /// Whether all tables that a scan's header names are defined.
    pub(super) fn serve(&self, header: &[u8]) -> bool {
        let parts = header.get(1..).unwrap_or_default().as_chunks::<2>().0;
        let parts = &parts[..parts.len().min(usize::from(*header.first().unwrap_or(&0)))];
        let there =
            |tables: &[Option<Table>; 4], number: u8| tables.get(usize::from(number)).is_some_and(Option::is_some);
        parts.iter().all(|&[_, numbers]| there(&self.dc, numbers >> 4) && there(&self.ac, numbers & 15))
    }
}

/// Reads the bits of a scan, up to the next marker.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The offset of the next byte that is not in the buffer.
    at: usize,
    /// The next bits, starting at the most significant bit.
    buffer: u64,
    /// The number of bits in the buffer.
    left: u32,
    /// Whether more bits were read than the data has.
    pub(super) ended: bool,
    /// Whether a code was not in its table.
    pub(super) invalid: bool,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, buffer: 0, left: 0, ended: false, invalid: false }
    }

    fn refill(&mut self) {
        while self.left <= 56 {
            let Some(&byte) = self.bytes.get(self.at) else { return };
            if byte == 0xff {
                // `FF 00` is a data byte, even after fill bytes; anything else is a marker.
                let behind = self.bytes[self.at..].iter().position(|&byte| byte != 0xff);
                match behind.map(|behind| (behind, self.bytes[self.at + behind])) {
                    Some((behind, 0)) => self.at += behind,
                    _ => return,
                }
            }
            self.at += 1;
            self.buffer |= u64::from(byte) << (56 - self.left);
            self.left += 8;
        }
    }

    /// The next symbol. If it cannot be read, returns 0 and sets `ended` or `invalid`.
    pub(super) fn symbol(&mut self, table: &Table) -> u32 {
        if self.left < 32 {
            self.refill();
        }
        let bits = (self.buffer >> 48) as u32;
        let entry = table.fast[(bits >> (16 - LOOK)) as usize];
        let (length, symbol) = if entry != 0 {
            (u32::from(entry >> 8), entry as u8)
        } else {
            table.slow(bits).unwrap_or_else(|| {
                self.invalid = true;
                (0, 0)
            })
        };
        self.drop(length);
        u32::from(symbol)
    }

    /// Reads up to 16 bits as a number.
    pub(super) fn number(&mut self, length: u32) -> u32 {
        if length == 0 {
            return 0;
        }
        if self.left < length {
            self.refill();
        }
        let number = (self.buffer >> (64 - length)) as u32;
        self.drop(length);
        number
    }

    /// Skips up to 64 bits.
    pub(super) fn skip(&mut self, mut length: u32) {
        while length > 0 {
            let now = length.min(32);
            if self.left < now {
                self.refill();
            }
            self.drop(now);
            length -= now;
        }
    }

    fn drop(&mut self, length: u32) {
        if length > self.left {
            self.ended = true;
            (self.buffer, self.left) = (0, 0);
        } else {
            self.buffer <<= length;
            self.left -= length;
        }
    }

    /// Skips the rest of the data before the next marker. Returns the number of bytes that are not padding (0 or 255).
    ///
    /// Zeros count as data if the bytes read last were also zeros: then the file has a hole.
    pub(super) fn surplus(&mut self) -> usize {
        const HOLE: usize = 64;
        self.drop(self.left % 8);
        let end = self.at - self.left as usize / 8;
        let taken = self.bytes[..end].iter().rev().take_while(|&&byte| byte == 0).count();
        let (mut zeros, mut others) = (0, 0);
        loop {
            self.refill();
            if self.left == 0 {
                break;
            }
            match (self.buffer >> 56) as u8 {
                0 => zeros += 1,
                0xff => {}
                _ => others += 1,
            }
            self.drop(8);
        }
        others + if taken >= HOLE { zeros } else { 0 }
    }

    /// Skips a restart marker. Sets `ended` if there is none.
    pub(super) fn restart(&mut self) {
        let marker = self.bytes[self.at.min(self.bytes.len())..].iter().position(|&byte| byte != 0xff);
        match marker.map(|at| self.at + at) {
            Some(at) if matches!(self.bytes[at], 0xd0..=0xd7) => self.at = at + 1,
            _ => self.ended = true,
        }
    }
}
