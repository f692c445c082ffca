//! The name in a TLS client's first message (RFC 8446 §4.1.2, RFC 6066 §3), read as far as that takes and no further.

/// The largest first message that is waited for, in bytes.
const MOST: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peek {
    /// As far as it goes, it could be one.
    More,
    /// The name that the client asks for, if it tells one.
    Hello(Option<String>),
    /// Something else.
    NotTls,
}

/// Looks at the first bytes of a connection.
pub fn peek(bytes: &[u8]) -> Peek {
    match message(bytes) {
        Read::Done(hello) => name_of(&hello).map_or(Peek::NotTls, Peek::Hello),
        Read::More if bytes.len() < MOST => Peek::More,
        Read::More | Read::Other => Peek::NotTls,
    }
}

enum Read {
    More,
    Done(Vec<u8>),
    Other,
}

/// The body of the ClientHello, gathered from as many records as it lies in.
fn message(bytes: &[u8]) -> Read {
    let mut gathered = Vec::new();
    let mut rest = Cursor(bytes);
    loop {
        if let Some([kind, ..]) = gathered.get(..1)
            && *kind != CLIENT_HELLO
        {
            return Read::Other;
        }
        if let Some([_, high, middle, low]) = gathered.get(..4) {
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if length > MOST {
                return Read::Other;
            }
            if let Some(body) = gathered.get(4..4 + length) {
                return Read::Done(body.to_vec());
            }
        }
        match rest.0 {
            [] => return Read::More,
            [HANDSHAKE] => return Read::More,
            [HANDSHAKE, 3, ..] => {}
            _ => return Read::Other,
        }
        let header = rest.take(3).zip(rest.number(2));
        let Some((_, length)) = header else { return Read::More };
        if length == 0 {
            return Read::Other;
        }
        let whole = rest.0.len() >= length;
        gathered.extend_from_slice(rest.take(length.min(rest.0.len())).unwrap_or_default());
        if !whole {
            // Its beginning tells whether the rest is worth waiting for.
            return if gathered.first().is_none_or(|kind| *kind == CLIENT_HELLO) { Read::More } else { Read::Other };
        }
    }
}

/// None: it is no ClientHello. Some(None): it names nobody.
fn name_of(hello: &[u8]) -> Option<Option<String>> {
    let mut hello = Cursor(hello);
    hello.take(2 + 32)?; // version, random
    hello.counted(1)?; // session
    hello.counted(2)?; // cipher suites
    hello.counted(1)?; // compression
    if hello.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Cursor(hello.counted(2)?);
    if !hello.0.is_empty() {
        return None;
    }
    let mut name = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let content = extensions.counted(2)?;
        if kind == usize::from(SERVER_NAME) {
            // Twice is an error of the protocol, and two readers might take different ones.
            if name.is_some() {
                return None;
            }
            name = Some(server_name(content)?);
        }
    }
    Some(name)
}

/// The list of names may hold one of each kind, and there is only one kind.
fn server_name(content: &[u8]) -> Option<String> {
    let mut content = Cursor(content);
    let mut list = Cursor(content.counted(2)?);
    let kind = list.take(1)?;
    let name = list.counted(2)?;
    let alone = content.0.is_empty() && list.0.is_empty() && kind == [HOST_NAME];
    let text = std::str::from_utf8(name).ok()?;
    alone.then(|| text.to_owned())
}

/// The part that is not read yet.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A big-endian number of so many bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        let taken = self.take(bytes)?;
        Some(taken.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Bytes after their count.
    fn counted(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let count = self.number(bytes)?;
        self.take(count)
    }
}
