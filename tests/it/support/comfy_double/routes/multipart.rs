//! A posted form, read whole.

/// One field of the form.
pub struct Field<'a> {
    pub name: String,
    pub filename: Option<String>,
    pub data: &'a [u8],
}

/// The fields of a `multipart/form-data` body; nothing when it is none.
pub fn fields<'a>(content_type: &str, body: &'a [u8]) -> Option<Vec<Field<'a>>> {
    let boundary = content_type.strip_prefix("multipart/form-data")?.split("boundary=").nth(1)?.trim_matches('"');
    let mark = format!("--{boundary}").into_bytes();
    let mut fields = Vec::new();
    let mut rest = &body[find(body, &mark)? + mark.len()..];
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let end = find(part, &mark)?;
        let content = part.get(..end.checked_sub(2)?)?;
        let head_end = find(content, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&content[..head_end]).into_owned();
        let data = &content[head_end + 4..];
        fields.push(Field { name: parameter(&head, " name=")?, filename: parameter(&head, " filename="), data });
        rest = &part[end + mark.len()..];
    }
    Some(fields)
}

fn parameter(head: &str, name: &str) -> Option<String> {
    let value = head.split(name).nth(1)?.strip_prefix('"')?;
    value.split('"').next().map(str::to_owned)
}

fn find(within: &[u8], wanted: &[u8]) -> Option<usize> {
    within.windows(wanted.len()).position(|window| window == wanted)
}
