//! Does a PostgreSQL admit a new session? The check sends the first message of a session, and the server's first answer is enough:
//! the server has then forked a process and taken a place. No password is sent.

use interrex_actors::ports::NoReply;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

/// Version 3.0 of the protocol.
const PROTOCOL: i32 = 3 << 16;
/// The longest answer that is read.
const ANSWER_LIMIT: usize = 8_192;

/// Asks a server for a session, and closes the connection after its first answer.
///
/// # Errors
/// The server admits no session, or does not answer. The caller sets the time limit.
pub(crate) async fn ask_for_a_session(
    (host, port): (&str, u16),
    user: &str,
    parameter: (&str, &str),
) -> Result<(), NoReply> {
    // a host may be the folder of a socket
    if host.starts_with('/') {
        let stream =
            UnixStream::connect(format!("{host}/.s.PGSQL.{port}")).await.map_err(|error| failed(&error))?;
        return converse(stream, user, parameter).await;
    }
    let stream = TcpStream::connect((host, port)).await.map_err(|error| failed(&error))?;
    converse(stream, user, parameter).await
}

fn failed(error: &std::io::Error) -> NoReply {
    NoReply::of_system(error, error.to_string())
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    user: &str,
    parameter: (&str, &str),
) -> Result<(), NoReply> {
    stream.write_all(&first_message(user, parameter)).await.map_err(|error| failed(&error))?;
    loop {
        let (kind, body) = message(&mut stream).await.map_err(|error| failed(&error))?;
        match kind {
            b'E' => return Err(refusal(&body)),
            // no password is needed: the session becomes ready, and is ended cleanly
            b'Z' => return stream.write_all(&[b'X', 0, 0, 0, 4]).await.map_err(|error| failed(&error)),
            b'R' if body.iter().any(|byte| *byte != 0) => return Ok(()),
            _ => {}
        }
    }
}

fn first_message(user: &str, (name, value): (&str, &str)) -> Vec<u8> {
    let mut words = Vec::new();
    for word in ["user", user, name, value, "application_name", "interrex", ""] {
        words.extend_from_slice(word.as_bytes());
        words.push(0);
    }
    let length = i32::try_from(words.len() + 8).unwrap_or_default();
    [&length.to_be_bytes()[..], &PROTOCOL.to_be_bytes(), &words].concat()
}

async fn message(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let length = usize::try_from(stream.read_i32().await?).unwrap_or_default().saturating_sub(4);
    if length > ANSWER_LIMIT {
        return Err(std::io::Error::other("the answer is not an answer of PostgreSQL"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// Fields of an ErrorResponse: a letter and a text each.
fn refusal(body: &[u8]) -> NoReply {
    let field = |letter: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        let found = fields.find_map(|field| field.strip_prefix(&[letter]));
        String::from_utf8_lossy(found.unwrap_or_default()).into_owned()
    };
    NoReply::of_sqlstate(&field(b'C'), &field(b'M'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_by_its_code() {
        let body = b"SFATAL\0VFATAL\0C53300\0Mtut mir leid\0\0";
        assert_eq!(refusal(body).code(), Some("53300"));
        let starting = refusal(b"SFATAL\0C57P03\0Mdas Datenbanksystem startet\0\0");
        assert!(matches!(starting, NoReply::Passing(_)), "{starting:?}");
    }

    #[test]
    fn the_first_message_is_as_the_protocol_has_it() {
        let message = first_message("u", ("database", "d"));
        assert_eq!(message[..8], [0, 0, 0, 53, 0, 3, 0, 0]);
        assert_eq!(&message[8..], b"user\0u\0database\0d\0application_name\0interrex\0\0");
        assert_eq!(message.len(), 53);
    }
}
