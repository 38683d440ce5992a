//! Frames of a WebSocket client bit by bit, those that RFC 6455 forbids among them.

/// First bytes of frames: the last of its message (`0x80`) and the opcode.
pub const CONTINUED: u8 = 0x80;
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;
/// Taken off, the frame is not the last one of its message.
pub const FIN: u8 = 0x80;

/// One masked frame, its length in the fewest bytes.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x0f, 0xf0, 0x55, 0xaa];
    let mut bytes = header(first, payload.len() as u64);
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Opcode and length of a masked frame, without the mask.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes
}

/// Frames that RFC 6455 forbids: each ends the socket with 1002.
pub fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a reserved bit", frame(BINARY | 0x40, b"x")),
        ("an unknown opcode", frame(0x83, b"x")),
        ("an unknown control opcode", frame(0x8b, b"")),
        ("no mask", vec![BINARY, 1, b'x']),
        ("a ping in fragments", frame(PING & !FIN, b"x")),
        ("a ping of 126 bytes", frame(PING, &[0; 126])),
        ("a continuation of nothing", frame(CONTINUED, b"x")),
        ("a message inside a message", [frame(BINARY & !FIN, b"x"), frame(BINARY, b"x")].concat()),
        ("a close frame of one byte", frame(CLOSE, b"x")),
        ("a close code that is never sent", frame(CLOSE, &1005u16.to_be_bytes())),
    ]
}
