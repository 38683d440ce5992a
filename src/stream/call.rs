//! One HTTP/1.1 request over a connection of its own, in the task of whoever waits for the answer: nothing is left when
//! that one is gone. The caller sets the deadline.

use std::error::Error as StdError;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Why there is no answer.
pub type Failure = Box<dyn StdError + Send + Sync>;

/// Sends `request`, whose target and `Host` are as they go out, and reads the answer with a body of at most `most` bytes.
pub async fn call<S, B>(stream: S, request: Request<B>, most: usize) -> Result<Response<Bytes>, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: Body<Data: Send, Error: Into<Failure>> + Send + 'static,
{
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, most).collect().await?.to_bytes();
        Ok(Response::from_parts(parts, body))
    };
    tokio::pin!(connection, answer);
    tokio::select! {
        answer = &mut answer => answer,
        // What came before the end may be a whole answer; else this says how it ended.
        _ = &mut connection => answer.await,
    }
}

/// The same with the host that the URL of `request` names.
#[cfg(any(feature = "relay", feature = "bridge"))]
pub async fn call_url<B>(
    tls: Option<&tokio_rustls::TlsConnector>,
    mut request: Request<B>,
    most: usize,
) -> Result<Response<Bytes>, Failure>
where
    B: Body<Data: Send, Error: Into<Failure>> + Send + 'static,
{
    let url = request.uri().clone();
    let authority = url.authority().ok_or("an address without a host")?;
    let host = authority.host().trim_matches(['[', ']']);
    request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_str(authority.as_str())?);
    *request.uri_mut() = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).parse()?;
    let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let tcp = tokio::net::TcpStream::connect((host, port)).await?;
    match tls {
        None => call(tcp, request, most).await,
        Some(tls) => {
            let name = rustls::pki_types::ServerName::try_from(host.to_owned())?;
            call(tls.connect(name, tcp).await?, request, most).await
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    async fn answer(text: &'static str, most: usize) -> Result<Response<Bytes>, Failure> {
        let (near, mut far) = duplex(1024);
        let request = Request::get("/path").body(Empty::<Bytes>::new())?;
        let serve = async {
            let mut head = vec![0; 512];
            let count = far.read(&mut head).await.unwrap();
            assert!(head[..count].starts_with(b"GET /path HTTP/1.1\r\n"));
            far.write_all(text.as_bytes()).await.unwrap();
            drop(far);
        };
        tokio::join!(call(near, request, most), serve).0
    }

    #[tokio::test]
    async fn a_whole_answer_counts_however_its_connection_ends_and_part_of_one_does_not() {
        let whole = "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone";
        for text in [
            whole,
            "HTTP/1.1 404 Not Found\r\n\r\nnone",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnoneHTTP/9",
        ] {
            let answer = answer(text, 4).await.unwrap();
            assert_eq!((answer.status().as_u16(), &answer.body()[..]), (404, &b"none"[..]), "{text}");
        }
        for part in ["", "HTTP/1.1 200 OK\r\n", &whole[..whole.len() - 1]] {
            assert!(answer(part, 4).await.is_err(), "{part}");
        }
        assert!(answer(whole, 3).await.unwrap_err().is::<http_body_util::LengthLimitError>());
    }
}
