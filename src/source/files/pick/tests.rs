//! The sieve, with streams that come in pieces and with noise.

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is let through of a stream that comes in pieces of that size.
fn through(stream: &[u8], piece: usize) -> (io::Result<()>, Vec<u8>) {
    let pick = Pick::new(&["a/*".to_owned()]).unwrap().unwrap();
    let sink = Sink::default();
    let mut sieve = pick.sieve(Box::new(sink.clone()));
    let passed = stream.chunks(piece).try_for_each(|piece| sieve.write_all(piece));
    let out = sink.0.lock().unwrap().clone();
    (passed, out)
}

fn header(name: &str, kind: u8, size: usize) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    block[257..263].copy_from_slice(b"ustar\0");
    block
}

#[test]
fn only_what_is_wanted_goes_on_however_it_comes() {
    let data = vec![b'x'; BLOCK];
    let pax = |record: &str| {
        let mut block = record.as_bytes().to_vec();
        block.resize(BLOCK, 0);
        [header("pax", b'x', record.len()), block].concat()
    };
    let above = header("./a/", b'5', 0);
    let wanted = [pax("12 path=a/w\n"), header("cut", b'0', 5), data.clone()].concat();
    let other = [header("./b", b'0', 700), data.clone(), data.clone()].concat();
    let end = vec![0; 20 * BLOCK];
    let stream = [&header("./", b'5', 0)[..], &above, &other, &wanted, &other, &end].concat();
    let expected = [&header("./", b'5', 0)[..], &wanted, &end[..2 * BLOCK]].concat();
    for piece in [1, 7, BLOCK, stream.len()] {
        let (passed, out) = through(&stream, piece);
        assert!(passed.is_ok() && out == expected, "{piece}");
    }
    // Right behind its folder, that goes on too.
    let stream = [&above[..], &wanted, &end].concat();
    let expected = [&above[..], &wanted, &end[..2 * BLOCK]].concat();
    assert_eq!(through(&stream, BLOCK).1, expected);
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(noise: Vec<u8>, kind: u8, size in 0_usize..5000) {
        let stream = [header("x", kind, size), noise.clone(), noise].concat();
        through(&stream, 100).0.ok();
    }
}
