//! The frames of `pointsman-script-1`, the agent's own subsystem: pure. `agent/PROTOCOL.md` tells what they mean.
//!
//! A frame is one byte of kind, four bytes of length (big endian) and as many bytes of payload, in both
//! directions. What comes from outside is bounded here: a peer can neither make this side allocate more than
//! one frame nor make it panic.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The subsystem's name; another version is another name.
pub(crate) const SUBSYSTEM: &str = "pointsman-script-1";

/// Kind and length.
pub(crate) const HEADER: usize = 5;

/// The longest payload that is taken.
const LONGEST: usize = 64 << 10;

/// `id`, `may start`, `offset`, `length`.
const OPEN: usize = 16 + 1 + 8 + 8;

/// Names one run of one script; random, chosen by the driver.
pub(crate) type Id = [u8; 16];

/// What the driver says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// First, and once per channel.
    Open(Open),
    /// The next bytes of the script.
    Script(Bytes),
    /// All of the script was sent: start it.
    Go,
    /// The log up to this offset has arrived and may go.
    Ack(u64),
    /// Send this signal to the script's process group.
    Signal(u8),
}

/// Names a script, and what the driver knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Open {
    /// Which script.
    pub(crate) id: Id,
    /// Whether an unknown id is a new script. Never said again once [`Frame::Go`] was sent.
    pub(crate) may_start: bool,
    /// Where in the log to go on.
    pub(crate) offset: u64,
    /// The script's length in bytes.
    pub(crate) length: u64,
    /// For `/bin/sh -c`.
    pub(crate) command: Bytes,
}

/// What is no frame of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// The beginning of an answer or log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Answer: send the script from this byte on; the log follows.
    Have,
    /// Answer: the script has started; the log follows from the offset that was asked for.
    Log,
    /// Answer: no such script here.
    Unknown,
    /// Answer: not possible, for the reason in the payload.
    Refused,
    /// Record: standard output.
    Stdout,
    /// Record: standard error.
    Stderr,
    /// Record, the last one: how the script ended.
    End,
    /// Record, the last one: the script could not be started, for the reason in the payload.
    Failed,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Have => b'H',
            Self::Log => b'L',
            Self::Unknown => b'U',
            Self::Refused => b'R',
            Self::Stdout => b'O',
            Self::Stderr => b'E',
            Self::End => b'X',
            Self::Failed => b'F',
        }
    }

    /// One whole frame.
    pub(crate) fn frame(self, payload: &[u8]) -> Bytes {
        let mut frame = BytesMut::with_capacity(HEADER + payload.len());
        frame.put_bytes(0, HEADER);
        frame.put_slice(payload);
        self.seal(frame)
    }

    /// Fills the header in that `frame` has kept free in front of its payload.
    pub(crate) fn seal(self, mut frame: BytesMut) -> Bytes {
        // Payloads are pieces of a pipe or short texts, far below 4 GiB.
        let length = u32::try_from(frame.len().saturating_sub(HEADER)).unwrap_or(u32::MAX);
        if let Some((kind, rest)) = frame.split_first_mut() {
            *kind = self.byte();
            if let Some(space) = rest.get_mut(..4) {
                space.copy_from_slice(&length.to_be_bytes());
            }
        }
        frame.freeze()
    }
}

/// Cuts what arrives into frames.
#[derive(Default)]
pub(crate) struct Parser(BytesMut);

impl Parser {
    /// Takes bytes in whatever pieces they come.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
    }

    /// The next whole frame.
    ///
    /// # Errors
    ///
    /// Fails on what is no frame; there is no way to go on after that.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Malformed> {
        let Some((&kind, rest)) = self.0.split_first() else { return Ok(None) };
        if !matches!(kind, b'O' | b'S' | b'G' | b'A' | b'K') {
            return Err(Malformed("a frame of an unknown kind"));
        }
        let Some(&length) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(length) as usize;
        if length > LONGEST {
            return Err(Malformed("a frame that is too long"));
        }
        if self.0.len() < HEADER + length {
            return Ok(None);
        }
        self.0.advance(HEADER);
        parse(kind, self.0.split_to(length).freeze()).map(Some)
    }
}

fn parse(kind: u8, mut payload: Bytes) -> Result<Frame, Malformed> {
    match kind {
        b'S' => Ok(Frame::Script(payload)),
        b'G' if payload.is_empty() => Ok(Frame::Go),
        b'A' if payload.len() == 8 => Ok(Frame::Ack(payload.get_u64())),
        b'K' if payload.len() == 1 => Ok(Frame::Signal(payload.get_u8())),
        b'O' if payload.len() > OPEN => {
            let mut id = [0; 16];
            payload.copy_to_slice(&mut id);
            let may_start = match payload.get_u8() {
                0 => false,
                1 => true,
                _ => return Err(Malformed("an opening frame with a flag that is neither 0 nor 1")),
            };
            let (offset, length) = (payload.get_u64(), payload.get_u64());
            Ok(Frame::Open(Open { id, may_start, offset, length, command: payload }))
        }
        _ => Err(Malformed("a frame of the wrong length")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without a library: xorshift64*.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, below: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
        }
    }

    fn bytes(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind];
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    fn open(id: u8, may_start: u8, offset: u64, length: u64, command: &[u8]) -> Vec<u8> {
        let mut payload = vec![id; 16];
        payload.push(may_start);
        payload.extend_from_slice(&offset.to_be_bytes());
        payload.extend_from_slice(&length.to_be_bytes());
        payload.extend_from_slice(command);
        bytes(b'O', &payload)
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let mut stream = open(7, 1, 0, 3, b"exec bash");
        stream.extend(bytes(b'S', b"abc"));
        stream.extend(bytes(b'G', b""));
        stream.extend(bytes(b'A', &9_u64.to_be_bytes()));
        stream.extend(bytes(b'K', &[15]));
        let expected = [
            Frame::Open(Open {
                id: [7; 16],
                may_start: true,
                offset: 0,
                length: 3,
                command: Bytes::from_static(b"exec bash"),
            }),
            Frame::Script(Bytes::from_static(b"abc")),
            Frame::Go,
            Frame::Ack(9),
            Frame::Signal(15),
        ];
        for size in 1..=stream.len() {
            let mut parser = Parser::default();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                parser.push(piece);
                while let Some(frame) = parser.next().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, expected, "{size}");
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for wrong in [
            bytes(b'Z', b""),
            bytes(b'A', b"1234567"),
            bytes(b'K', b""),
            bytes(b'O', &[0; OPEN]),
            open(1, 2, 0, 0, b"x"),
            vec![b'S', 0, 1, 0, 1],
            vec![b'S', 255, 255, 255, 255],
        ] {
            let mut parser = Parser::default();
            parser.push(&wrong);
            assert!(parser.next().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn two_hundred_thousand_random_streams_do_no_harm() {
        let seed = 0x5eed_0005;
        let mut dice = Dice(seed);
        let kinds = *b"OSAKG\0\xff";
        let (mut taken, mut refused) = (0_u64, 0_u64);
        for _ in 0..200_000 {
            let mut parser = Parser::default();
            for _ in 0..dice.roll(4) {
                let mut payload = vec![0; dice.roll(48) as usize];
                payload.iter_mut().for_each(|byte| *byte = dice.roll(256) as u8);
                if let Some(flag) = payload.get_mut(16) {
                    *flag &= 1;
                }
                let mut frame = bytes(kinds[dice.roll(7) as usize], &payload);
                // A lie about the length, or a torn frame.
                match dice.roll(8) {
                    0 => frame[1 + dice.roll(4) as usize] = dice.roll(256) as u8,
                    1 => frame.truncate(dice.roll(frame.len() as u64) as usize),
                    _ => {}
                }
                parser.push(&frame);
            }
            loop {
                match parser.next() {
                    Ok(Some(_)) => taken += 1,
                    Ok(None) => break,
                    Err(Malformed(_)) => {
                        refused += 1;
                        break;
                    }
                }
            }
            assert!(parser.0.len() <= 4 * (HEADER + 64), "seed {seed:#x}");
        }
        assert!(taken > 10_000 && refused > 10_000, "{taken} {refused}");
    }

    #[test]
    fn a_sealed_frame_has_its_kind_and_length() {
        assert_eq!(&*Kind::Stdout.frame(b"abc"), b"O\0\0\0\x03abc");
        assert_eq!(&*Kind::Unknown.frame(b""), b"U\0\0\0\0");
    }
}
