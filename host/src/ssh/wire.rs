//! The frames of `pointsman-script-1`, the agent's own subsystem, as the driver speaks it: pure.
//! `agent/PROTOCOL.md` tells what they mean.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::outflow::Stream;

/// The subsystem's name; another version is another name.
pub(super) const SUBSYSTEM: &str = "pointsman-script-1";

/// The longest script that the agent keeps before it starts.
pub(super) const LONGEST_SCRIPT: u64 = 64 << 20;

/// Kind and length.
const HEADER: usize = 5;

/// Of answers and of records other than output: texts and numbers.
const LONGEST_TEXT: usize = 4 << 10;

/// Names one run of one script.
pub(super) type Id = [u8; 16];

/// The first frame of a channel.
pub(super) fn open(id: &Id, may_start: bool, offset: u64, length: u64, command: &str) -> Bytes {
    let mut payload = BytesMut::with_capacity(33 + command.len());
    payload.put_slice(id);
    payload.put_u8(may_start.into());
    payload.put_u64(offset);
    payload.put_u64(length);
    payload.put_slice(command.as_bytes());
    frame(b'O', &payload)
}

/// The next bytes of the script; at most 64 KiB.
pub(super) fn script(data: &[u8]) -> Bytes {
    frame(b'S', data)
}

/// Start the script, all of which was sent.
pub(super) fn go() -> Bytes {
    frame(b'G', b"")
}

/// The log up to `offset` is here.
pub(super) fn acknowledge(offset: u64) -> Bytes {
    frame(b'A', &offset.to_be_bytes())
}

/// Send this signal.
pub(super) fn signal(number: u8) -> Bytes {
    frame(b'K', &[number])
}

fn frame(kind: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER + payload.len());
    frame.put_u8(kind);
    // Callers keep to 64 KiB.
    frame.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    frame.put_slice(payload);
    frame.freeze()
}

/// What the agent says before the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Send the script from this byte on.
    Have(u64),
    /// The script has started.
    Log,
    /// No such script.
    Unknown,
    /// Not possible.
    Refused(String),
}

/// A piece of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// Output, a record of it or a part of one.
    Output(Stream, Bytes),
    /// How the script ended.
    End(End),
    /// It could not be started.
    Failed(String),
}

/// The last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Whether `number` is a signal's and not an exit status.
    pub(super) by_signal: bool,
    pub(super) number: u32,
    /// From start to end, in microseconds.
    pub(super) wall: u64,
    /// User and system time, in microseconds.
    pub(super) cpu: u64,
    /// Peak memory in bytes.
    pub(super) memory: Option<u64>,
}

/// What is no frame of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent speaks another protocol: {0}")]
pub struct Malformed(&'static str);

/// Reads the answer of one connection, and leaves what follows.
#[derive(Default)]
pub(super) struct Answers(BytesMut);

impl Answers {
    /// Takes what arrived; gives the answer, once it is whole, and the beginning of the log.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<Option<(Answer, Bytes)>, Malformed> {
        self.0.extend_from_slice(data);
        let Some((kind, length)) = header(&self.0)? else { return Ok(None) };
        if self.0.len() < HEADER + length {
            return Ok(None);
        }
        let mut payload = self.0.split_to(HEADER + length);
        payload.advance(HEADER);
        let answer = match kind {
            b'H' if length == 8 => Answer::Have(payload.get_u64()),
            b'L' => Answer::Log,
            b'U' => Answer::Unknown,
            b'R' => Answer::Refused(String::from_utf8_lossy(&payload).into_owned()),
            _ => return Err(Malformed("an answer of an unknown kind")),
        };
        Ok(Some((answer, self.0.split().freeze())))
    }
}

fn header(bytes: &[u8]) -> Result<Option<(u8, usize)>, Malformed> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > LONGEST_TEXT && !matches!(kind, b'O' | b'E') {
        return Err(Malformed("a frame that is too long"));
    }
    Ok(Some((kind, length)))
}

/// Reads the log. Lives as long as the script: a connection may end within a record, and the next one goes on
/// behind the last byte. Output is given on as it comes, without a copy and without waiting for its record.
#[derive(Default)]
pub(super) struct Records {
    /// A header, or a record that is no output, of which a part has come.
    partial: BytesMut,
    /// What is missing of the output record that is being read.
    missing: Option<(Stream, usize)>,
}

impl Records {
    /// Takes what arrived, and gives `each` what it means.
    pub(super) fn push(
        &mut self,
        mut data: Bytes,
        mut each: impl FnMut(Record),
    ) -> Result<(), Malformed> {
        while !data.is_empty() {
            if let Some((stream, missing)) = self.missing {
                let piece = data.split_to(missing.min(data.len()));
                self.missing = Some((stream, missing - piece.len())).filter(|(_, left)| *left > 0);
                each(Record::Output(stream, piece));
                continue;
            }
            let wanted = match header(&self.partial)? {
                None => HEADER,
                Some((_, length)) => HEADER + length,
            };
            let more = data.split_to((wanted - self.partial.len()).min(data.len()));
            self.partial.extend_from_slice(&more);
            let Some((kind, length)) = header(&self.partial)? else { continue };
            let stream = match kind {
                b'O' => Some(Stream::Stdout),
                b'E' => Some(Stream::Stderr),
                b'X' | b'F' => None,
                _ => return Err(Malformed("a record of an unknown kind")),
            };
            if let Some(stream) = stream {
                self.partial.clear();
                self.missing = Some((stream, length)).filter(|(_, length)| *length > 0);
            } else if self.partial.len() == HEADER + length {
                let mut payload = self.partial.split();
                payload.advance(HEADER);
                each(last(kind, payload)?);
            }
        }
        Ok(())
    }
}

fn last(kind: u8, mut payload: BytesMut) -> Result<Record, Malformed> {
    if kind == b'F' {
        return Ok(Record::Failed(String::from_utf8_lossy(&payload).into_owned()));
    }
    if payload.len() < 29 {
        return Err(Malformed("an ending that is too short"));
    }
    let by_signal = payload.get_u8() == 1;
    let number = payload.get_u32();
    let (wall, cpu, memory) = (payload.get_u64(), payload.get_u64(), payload.get_u64());
    let memory = Some(memory).filter(|memory| *memory != u64::MAX);
    Ok(Record::End(End { by_signal, number, wall, cpu, memory }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Vec<u8> {
        let mut log = frame(b'O', b"one").to_vec();
        log.extend_from_slice(&frame(b'E', b"two"));
        log.extend_from_slice(&frame(b'O', b""));
        log.extend_from_slice(&frame(b'O', &[b'x'; 9000]));
        let mut end = vec![0];
        end.extend_from_slice(&7_u32.to_be_bytes());
        for number in [1_500_000, 20, u64::MAX] {
            end.extend_from_slice(&number.to_be_bytes());
        }
        log.extend_from_slice(&frame(b'X', &end));
        log
    }

    #[test]
    fn the_log_is_the_same_however_it_is_cut() {
        for size in [1, 2, 3, 7, 100, 5000, 100_000] {
            let (mut stdout, mut stderr, mut end) = (Vec::new(), Vec::new(), None);
            let mut records = Records::default();
            for piece in log().chunks(size) {
                records
                    .push(Bytes::copy_from_slice(piece), |record| match record {
                        Record::Output(Stream::Stdout, data) => stdout.extend_from_slice(&data),
                        Record::Output(Stream::Stderr, data) => stderr.extend_from_slice(&data),
                        Record::End(found) => end = Some(found),
                        Record::Failed(reason) => panic!("{reason}"),
                    })
                    .unwrap();
            }
            assert_eq!(stdout, [&b"one"[..], &[b'x'; 9000]].concat(), "{size}");
            assert_eq!(stderr, b"two", "{size}");
            let expected =
                End { by_signal: false, number: 7, wall: 1_500_000, cpu: 20, memory: None };
            assert_eq!(end, Some(expected), "{size}");
        }
    }

    #[test]
    fn the_answer_is_told_from_the_log_behind_it() {
        let mut answers = Answers::default();
        let answer = frame(b'H', &9_u64.to_be_bytes());
        assert_eq!(answers.push(&answer[..4]).unwrap(), None);
        let rest = [&answer[4..], b"log"].concat();
        let expected = (Answer::Have(9), Bytes::from_static(b"log"));
        assert_eq!(answers.push(&rest).unwrap(), Some(expected));
        for (kind, expected) in
            [(b'L', Answer::Log), (b'U', Answer::Unknown), (b'R', Answer::Refused("no".into()))]
        {
            let payload: &[u8] = if kind == b'R' { b"no" } else { b"" };
            let found = Answers::default().push(&frame(kind, payload)).unwrap();
            assert_eq!(found, Some((expected, Bytes::new())));
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        assert!(Answers::default().push(b"Z\0\0\0\0").is_err());
        assert!(Answers::default().push(b"R\xff\xff\xff\xff").is_err());
        for wrong in [&b"Z\0\0\0\0"[..], b"X\0\0\0\x01x", b"F\xff\xff\xff\xff"] {
            let pushed = Records::default().push(Bytes::copy_from_slice(wrong), |_| {});
            assert!(pushed.is_err(), "{wrong:?}");
        }
    }
}
