//! The first words of a target that speaks HTTP/2: its SETTINGS frame, or what says that it does not. Pure.

/// Length, type, flags and stream of a frame (RFC 9113, section 4.1).
const HEADER: usize = 9;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;

/// What has come so far.
#[derive(Debug, Default)]
pub struct Hello {
    header: [u8; HEADER],
    filled: usize,
    /// Of the frame's payload still to come.
    payload: usize,
}

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Too little to tell.
    Part,
    /// The whole of its first frame.
    Settings,
    /// Another protocol, HTTP/1 most likely.
    Other,
}

impl Hello {
    /// Takes the next bytes.
    pub fn hear(&mut self, mut bytes: &[u8]) -> Heard {
        if self.filled < HEADER {
            let count = bytes.len().min(HEADER - self.filled);
            self.header[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
            let known = &self.header[..self.filled];
            // A few bytes are enough: whoever speaks HTTP/1 may say no more.
            let wrong = |at: usize, is: fn(u8) -> bool| known.get(at).is_some_and(|byte| !is(*byte));
            let zero = |at: usize| wrong(at, |byte| byte == 0);
            // No SETTINGS frame has 64 KiB.
            if zero(0)
                || wrong(3, |kind| kind == SETTINGS)
                || wrong(4, |flags| flags & ACK == 0)
                || (5..HEADER).any(zero)
            {
                return Heard::Other;
            }
            if self.filled < HEADER {
                return Heard::Part;
            }
            self.payload = usize::from(self.header[1]) << 8 | usize::from(self.header[2]);
        }
        self.payload = self.payload.saturating_sub(bytes.len());
        if self.payload == 0 { Heard::Settings } else { Heard::Part }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_heard_however_they_are_cut_and_nothing_else_passes_for_them() {
        let frame = |kind: u8, flags: u8, stream: u8, payload: usize| {
            let mut frame = vec![0, 0, payload as u8, kind, flags, 0, 0, 0, stream];
            frame.resize(HEADER + payload, 7);
            frame
        };
        for payload in [0, 6, 36] {
            let frame = frame(SETTINGS, 0, 0, payload);
            for cut in 0..frame.len() {
                let mut hello = Hello::default();
                assert_eq!(hello.hear(&frame[..cut]), Heard::Part, "{cut}");
                assert_eq!(hello.hear(&frame[cut..]), Heard::Settings, "{cut}");
            }
            let mut hello = Hello::default();
            let bytes = frame.len();
            let heard: Vec<_> = frame.iter().map(|byte| hello.hear(&[*byte])).collect();
            assert!(heard[..bytes - 1].iter().all(|heard| *heard == Heard::Part));
            assert_eq!(heard[bytes - 1], Heard::Settings);
        }
        for other in [
            b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
            b"H".to_vec(),
            b"\x15\x03\x01\0\x02\x02".to_vec(),
            frame(SETTINGS, ACK, 0, 0),
            frame(SETTINGS, 0, 1, 0),
            frame(7, 0, 0, 8),
        ] {
            assert_eq!(Hello::default().hear(&other), Heard::Other, "{other:?}");
        }
    }
}
