//! Huffman tables, and the bits of a scan.

/// How many bits one look into a table resolves.
const LOOK: usize = 9;

/// The codes of one table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// For the next [`LOOK`] bits: the code's length in the high byte and its symbol in the low one, or 0 for a longer code.
    fast: Vec<u16>,
    /// Past the last code of each length, in 16 bits.
    limits: [u32; 17],
    /// What to add to a code of each length to find its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// `counts`: how many codes have 1 to 16 bits. `None` if these are no prefix codes.
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

    /// The length and the symbol of a code that is longer than a look, at the start of 16 bits.
    fn slow(&self, bits: u32) -> Option<(u32, u8)> {
        let length = (LOOK + 1..17).find(|&length| bits < self.limits[length])?;
        let index = (bits >> (16 - length)) as i32 + self.offsets[length];
        Some((length as u32, *self.symbols.get(usize::try_from(index).ok()?)?))
    }
}

/// The tables that are defined, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) dc: [Option<Table>; 4],
    pub(super) ac: [Option<Table>; 4],
}

impl Tables {
    /// Takes in a DHT segment, as far as it makes sense.
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

    /// Whether the tables that a scan's header names are there.
    pub(super) fn serve(&self, header: &[u8]) -> bool {
        let parts = header.get(1..).unwrap_or_default().as_chunks::<2>().0;
        let parts = &parts[..parts.len().min(usize::from(*header.first().unwrap_or(&0)))];
        let there =
            |tables: &[Option<Table>; 4], number: u8| tables.get(usize::from(number)).is_some_and(Option::is_some);
        parts.iter().all(|&[_, numbers]| there(&self.dc, numbers >> 4) && there(&self.ac, numbers & 15))
    }
}

/// The bits of a scan, up to the next marker.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte that is not in the buffer.
    at: usize,
    /// The next bits, from the top.
    buffer: u64,
    /// How many of them there are.
    left: u32,
    /// More bits were taken than there are.
    pub(super) ended: bool,
    /// A code came that is in no table.
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
                // `FF 00` is a byte of data, whatever fill bytes are ahead of it; anything else is a marker.
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

    /// The next symbol. Where none can be read it is 0, and `ended` or `invalid` says so.
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

    /// Up to 16 bits as a number.
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

    /// Passes over up to 64 bits that do not matter.
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

    /// Passes over what is left ahead of the next marker: how many bytes that are neither 0 nor 255, as padding is.
    ///
    /// Padding of zeros is data where the bits taken last were zeros, too: a hole in the file.
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

    /// Passes over a restart marker; without one, the scan has ended.
    pub(super) fn restart(&mut self) {
        let marker = self.bytes[self.at.min(self.bytes.len())..].iter().position(|&byte| byte != 0xff);
        match marker.map(|at| self.at + at) {
            Some(at) if matches!(self.bytes[at], 0xd0..=0xd7) => self.at = at + 1,
            _ => self.ended = true,
        }
    }
}
