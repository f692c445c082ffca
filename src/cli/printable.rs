//! Text from a sandbox, made safe to show: a handler must not move the cursor, retitle the window or reverse the line.

/// `text` with control and direction-changing characters escaped, line feeds and tabs left as they are.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => safe.push(character),
            steering if steers(steering) => safe.extend(steering.escape_unicode()),
            plain => safe.push(plain),
        }
    }
    safe
}

fn steers(character: char) -> bool {
    let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || turns
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn what_steers_a_terminal_is_shown_instead_of_obeyed() {
        assert_eq!(printable("a\tb\nc é 漢"), "a\tb\nc é 漢");
        assert_eq!(
            printable("\x1b[2J\u{9b}1m\r\u{202e}x\0"),
            r"\u{1b}[2J\u{9b}1m\u{d}\u{202e}x\u{0}"
        );
    }
}
