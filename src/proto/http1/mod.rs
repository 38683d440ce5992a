//! HTTP/1 as it is spoken to a target (RFC 9112): heads written afresh, responses read strictly. No sockets.

mod body;
mod chunk;
mod head;
mod write;

pub use body::{BodyReader, Piece};
pub use chunk::ChunkError;
pub use head::{Framing, HeadError, ResponseHead, list_contains};
pub use write::{
    RequestBody, RequestHead, chunk_head, chunked_end, cookie_line, head_end, header_line, request_head,
};
