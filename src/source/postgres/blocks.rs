//! Archives of pg_dump's custom format, on their way into pg_restore: uncompressed, each row is a block of its
//! own, for which pg_restore and the server do all again that they do for a block. Joined into larger ones a
//! restore takes a tenth less of the server's time, and pg_restore finds a table in a file ten times as fast.
//! Knows the format (PostgreSQL's `pg_backup_archiver.c` and `pg_backup_custom.c`); whatever it does not know
//! passes as it is. Must not know where an archive comes from or goes to.

use std::fs::File;
use std::io::{self, Write};

use super::frozen::{self, Frozen};
use super::head::{self, Contents, Head, NUMBER_BYTES};

/// A joined block; as much as pg_restore has to hold at once.
const BLOCK_BYTES: usize = 64 << 10;

/// Where an archive goes to, told what of it comes next.
pub(super) trait Taker: Write {
    /// The head, and what it said before anything was frozen.
    fn head(&mut self, head: &[u8], _contents: &Contents<'_>) -> io::Result<()> {
        self.write_all(head)
    }

    /// The rows of an entry: the byte that says so is the last that was written.
    fn begins(&mut self, _id: i64) {}

    /// Those rows have all been written.
    fn ended(&mut self) {}
}

impl Taker for Box<dyn Write + Send> {}
impl Taker for File {}

/// Joins the blocks of what is written through it. Its last part is written by `flush`.
pub(super) struct Joined<W> {
    out: W,
    frozen: Frozen,
    state: State,
    /// What is gathered: the head, or a number and the block that it will stand before.
    held: Vec<u8>,
    /// How much of the head there was when it was last looked at.
    looked: usize,
}

#[derive(Clone, Copy)]
enum State {
    /// The table of contents, until all of it is here.
    Head,
    /// The byte that says what comes.
    Kind,
    /// A number: of a table, or how long its next block is. So many of its bytes are here.
    Number { is_length: bool, bytes: [u8; NUMBER_BYTES], here: usize },
    /// So much of a block is left.
    Block { left: usize },
    /// Something that is not known, and all behind it.
    Unknown,
}

const TABLE: State = State::Number { is_length: false, bytes: [0; NUMBER_BYTES], here: 0 };
const LENGTH: State = State::Number { is_length: true, bytes: [0; NUMBER_BYTES], here: 0 };

impl<W: Taker> Joined<W> {
    pub(super) fn new(out: W, frozen: Frozen) -> Self {
        Self { out, frozen, state: State::Head, held: Vec::new(), looked: 0 }
    }

    fn head(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.held.extend_from_slice(bytes);
        // All of it is read anew each time.
        if self.held.len() < 2 * self.looked {
            return Ok(());
        }
        self.looked = self.held.len();
        match head::read(&self.held) {
            Head::Is(contents) => {
                let head = frozen::head(&contents, self.frozen);
                self.out.head(&head, &contents)?;
                let end = contents.bytes.len();
                let rest = self.held.split_off(end);
                self.begin_block();
                self.state = State::Kind;
                self.write_all(&rest)
            }
            Head::GoesOn if self.held.len() < head::MOST_BYTES => Ok(()),
            Head::GoesOn | Head::Unknown => self.give_up(),
        }
    }

    /// From here on everything passes as it is.
    fn give_up(&mut self) -> io::Result<()> {
        self.state = State::Unknown;
        self.out.write_all(&std::mem::take(&mut self.held))
    }

    fn begin_block(&mut self) {
        self.held.clear();
        self.held.resize(NUMBER_BYTES, 0);
    }

    fn end_block(&mut self) -> io::Result<()> {
        let length = self.held.len() - NUMBER_BYTES;
        if length == 0 {
            return Ok(());
        }
        let length = u32::try_from(length).map_err(io::Error::other)?;
        self.held[1..NUMBER_BYTES].copy_from_slice(&length.to_le_bytes());
        self.out.write_all(&self.held)?;
        self.begin_block();
        Ok(())
    }

    /// Takes what belongs to the present state, and gives the rest.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
        match self.state {
            State::Head => self.head(bytes).map(|()| &bytes[bytes.len()..]),
            State::Unknown => self.out.write_all(bytes).map(|()| &bytes[bytes.len()..]),
            State::Kind => {
                self.out.write_all(&bytes[..1])?;
                match bytes[0] {
                    ROWS => self.state = TABLE,
                    _ => {
                        self.held.clear();
                        self.give_up()?;
                    }
                }
                Ok(&bytes[1..])
            }
            State::Number { is_length, bytes: mut number, here } => {
                let count = bytes.len().min(NUMBER_BYTES - here);
                number[here..here + count].copy_from_slice(&bytes[..count]);
                self.state = State::Number { is_length, bytes: number, here: here + count };
                if here + count == NUMBER_BYTES {
                    self.number(is_length, number)?;
                }
                Ok(&bytes[count..])
            }
            State::Block { left } => {
                let count = left.min(bytes.len()).min(BLOCK_BYTES + NUMBER_BYTES - self.held.len());
                self.held.extend_from_slice(&bytes[..count]);
                self.state =
                    if count == left { LENGTH } else { State::Block { left: left - count } };
                if self.held.len() == BLOCK_BYTES + NUMBER_BYTES {
                    self.end_block()?;
                }
                Ok(&bytes[count..])
            }
        }
    }

    fn number(&mut self, is_length: bool, bytes: [u8; NUMBER_BYTES]) -> io::Result<()> {
        let [sign, number @ ..] = bytes;
        let number = u32::from_le_bytes(number);
        match (is_length, sign, usize::try_from(number)) {
            (false, ..) => {
                let id = i64::from(number);
                self.out.begins(if sign == 0 { id } else { -id });
                self.out.write_all(&bytes)?;
                self.state = LENGTH;
            }
            (true, 0, Ok(0)) => {
                self.end_block()?;
                self.out.write_all(&bytes)?;
                self.out.ended();
                self.state = State::Kind;
            }
            (true, 0, Ok(left)) => self.state = State::Block { left },
            _ => {
                self.end_block()?;
                self.held.clear();
                self.out.write_all(&bytes)?;
                self.state = State::Unknown;
            }
        }
        Ok(())
    }
}

impl<W: Taker> Write for Joined<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.take(rest)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let State::Head = self.state {
            // There is no more of it: what is here must do.
            self.looked = 0;
            self.head(&[])?;
        }
        match self.state {
            State::Head => self.give_up()?,
            State::Block { .. } | State::Number { .. } => self.end_block()?,
            State::Kind | State::Unknown => {}
        }
        self.out.flush()
    }
}

/// What comes is a table's rows. The other kind is large objects.
const ROWS: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::head::tests::{number, text};
    use super::*;

    impl Taker for Vec<u8> {}

    /// As pg_dump writes it into a pipe, with one entry.
    fn head(minor: u8, position: u8) -> Vec<u8> {
        let mut head = b"PGDMP\x01".to_vec();
        head.extend([minor, 0, 4, 8, 1]);
        head.extend(if minor < 15 { number(0) } else { vec![0] });
        (0..7).for_each(|n| head.extend(number(n)));
        ["shop", "17.1", "17.1"].iter().for_each(|name| head.extend(text(name)));
        head.extend(number(1));
        head.extend([number(1), number(1)].concat());
        ["1259", "16384", "t", "TABLE DATA"].iter().for_each(|word| head.extend(text(word)));
        head.extend(number(3));
        let words = ["", "", "COPY public.t FROM stdin;\n", "public", "", "heap"];
        let words = &words[..if minor < 14 { 5 } else { 6 }];
        words.iter().for_each(|word| head.extend(text(word)));
        head.extend(if minor < 16 { vec![] } else { number(114) });
        head.extend([text("shop"), text("false"), text("7"), number(-1)].concat());
        head.push(position);
        head.extend([0; 8]);
        head
    }

    fn rows(table: i64, rows: &[Vec<u8>]) -> Vec<u8> {
        let mut data = [vec![ROWS], number(table)].concat();
        for row in rows {
            data.extend(number(i64::try_from(row.len()).unwrap()));
            data.extend(row);
        }
        data.extend(number(0));
        data
    }

    fn joined(archive: &[u8], pieces: usize) -> Vec<u8> {
        let mut joined = Joined::new(Vec::new(), Frozen::Nobodys);
        archive.chunks(pieces).for_each(|piece| joined.write_all(piece).unwrap());
        joined.flush().unwrap();
        joined.out
    }

    proptest! {
        #[test]
        fn all_rows_are_there_in_order_and_in_few_blocks(
            minor in 12_u8..=16,
            lengths in proptest::collection::vec(1_usize..40_000, 0..20),
            pieces in 1_usize..5_000,
        ) {
            let each: Vec<Vec<u8>> = lengths.iter().enumerate()
                .map(|(n, length)| vec![b'a' + u8::try_from(n).unwrap(); *length]).collect();
            let archive = [head(minor, 1), rows(1, &each), rows(-2, &[]), rows(3, &each)].concat();
            let all: Vec<Vec<u8>> = each.concat().chunks(BLOCK_BYTES).map(<[u8]>::to_vec).collect();
            let expected = [head(minor, 1), rows(1, &all), rows(-2, &[]), rows(3, &all)].concat();
            prop_assert!(joined(&archive, pieces) == expected);
        }

        #[test]
        fn what_is_unknown_passes_as_it_is(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0_usize..200) {
            prop_assert_eq!(&joined(&bytes, 7), &bytes);
            let mut cut_off = head(14, 1);
            cut_off.truncate(cut);
            prop_assert_eq!(joined(&cut_off, 7), cut_off);
            // Behind the head it is not read as something else, and nothing of it is lost.
            let strange = [head(14, 1), vec![3], bytes].concat();
            prop_assert_eq!(joined(&strange, 7), strange);
        }
    }

    #[test]
    fn rows_are_frozen_where_that_is_asked_for() {
        let archive = [head(14, 1), rows(1, &[vec![1; 10]])].concat();
        let through = |frozen| {
            let mut joined = Joined::new(Vec::new(), frozen);
            joined.write_all(&archive).unwrap();
            joined.flush().unwrap();
            joined.out
        };
        let frozen = through(Frozen::All);
        let Head::Is(contents) = head::read(&frozen) else { panic!("it is no head any more") };
        let copy = contents.copy(&contents.entries[0]).unwrap();
        assert!(copy.ends_with(b"COPY public.t FROM stdin WITH (FREEZE);\n"));
        assert_eq!(frozen[contents.bytes.len()..], archive[head(14, 1).len()..]);
        // Nothing in the archive says that it makes this table.
        assert_eq!(through(Frozen::OfItsTables), archive);
    }

    #[test]
    fn positions_and_compression_and_other_versions_are_left_alone() {
        let each = [vec![1; 10], vec![2; 10]];
        let compressed = |minor: u8| {
            let mut head = head(minor, 1);
            head[if minor < 15 { 12 } else { 11 }] = 1;
            head
        };
        for head in [head(14, 2), head(17, 1), head(11, 1), compressed(14), compressed(16)] {
            let archive = [head, rows(1, &each)].concat();
            assert_eq!(joined(&archive, 9), archive);
        }
        // A length that makes no sense: what was there before it is not held back.
        let strange =
            [head(14, 1), vec![ROWS], number(1), number(2), vec![7, 7], number(-5)].concat();
        assert_eq!(joined(&strange, 9), strange);
    }
}
