//! torrc's syntax (C tor, `conffile.c` and `parseconf`): one option a line, `#` comments, `\` at the end
//! of a line goes on with the next one, a value in double quotes may hold escapes; `+Option` adds, `/Option` clears.

use super::{Place, TorrcError};

/// What a line does with the option's earlier values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// `Option value`.
    Set,
    /// `+Option value`.
    Append,
    /// `/Option`.
    Clear,
}

/// One option as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) doing: Doing,
    pub(super) name: String,
    pub(super) name_at: Place,
    pub(super) value: String,
    pub(super) value_at: Place,
}

/// The lines of `text`, and what could not be read.
pub(super) fn read(text: &str) -> (Vec<Line>, Vec<TorrcError>) {
    let mut cursor = Cursor {
        rest: text.chars().peekable(),
        place: Place { line: 1, column: 1 },
    };
    let (mut lines, mut errors) = (Vec::new(), Vec::new());
    while cursor.find_next_word() {
        match option_line(&mut cursor) {
            Ok(line) => lines.push(line),
            Err(error) => {
                errors.push(error);
                cursor.skip_line();
            }
        }
    }
    (lines, errors)
}

/// The same for option `number` of the command line, whose value the shell has taken out of its quotes.
pub(super) fn from_command_line(name: &str, value: &str, number: usize) -> Line {
    let (doing, name) = match (name.strip_prefix('+'), name.strip_prefix('/')) {
        (Some(name), _) => (Doing::Append, name),
        (_, Some(name)) => (Doing::Clear, name),
        _ => (Doing::Set, name),
    };
    let at = Place {
        line: 0,
        column: number,
    };
    Line {
        doing,
        name: name.to_owned(),
        name_at: at,
        value: value.trim().to_owned(),
        value_at: at,
    }
}

fn option_line(cursor: &mut Cursor<'_>) -> Result<Line, TorrcError> {
    let mut name_at = cursor.place;
    let mut name = cursor.word();
    let doing = match name.chars().next() {
        Some('+') => Doing::Append,
        Some('/') => Doing::Clear,
        _ => Doing::Set,
    };
    if doing != Doing::Set {
        name.remove(0);
        name_at.column += 1;
    }
    cursor.skip_blanks();
    let value_at = cursor.place;
    let value = match cursor.peek() {
        Some('"') => quoted(cursor)?,
        _ => cursor.plain_value(),
    };
    Ok(Line {
        doing,
        name,
        name_at,
        value,
        value_at,
    })
}

/// A value in double quotes, with C's escapes; nothing but a comment may follow it.
fn quoted(cursor: &mut Cursor<'_>) -> Result<String, TorrcError> {
    let begin = cursor.place;
    cursor.next();
    // A byte can be given as an escape, so the value is put together of bytes.
    let mut bytes = Vec::new();
    loop {
        let at = cursor.place;
        match cursor.next_on_this_line() {
            None => return Err(TorrcError::at(begin, "this quote is never closed")),
            Some('"') => break,
            Some('\\') => bytes.push(escaped(cursor).ok_or_else(|| TorrcError::at(at, "this escape is unknown"))?),
            Some(other) => bytes.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    cursor.skip_blanks();
    match cursor.peek() {
        None | Some('\n' | '#') => {}
        Some(_) => return Err(TorrcError::at(cursor.place, "nothing may follow the closing quote")),
    }
    String::from_utf8(bytes).map_err(|_| TorrcError::at(begin, "expected UTF-8"))
}

fn escaped(cursor: &mut Cursor<'_>) -> Option<u8> {
    match cursor.next_on_this_line()? {
        'n' => Some(b'\n'),
        'r' => Some(b'\r'),
        't' => Some(b'\t'),
        same @ ('"' | '\\' | '\'') => u8::try_from(same).ok(),
        'x' => {
            let digits: String = [cursor.next_on_this_line()?, cursor.next_on_this_line()?]
                .iter()
                .collect();
            u8::from_str_radix(&digits, 16).ok()
        }
        first @ '0'..='7' => {
            let mut octal = String::from(first);
            while let Some(digit) = cursor.peek().filter(|c| octal.len() < 3 && ('0'..='7').contains(c)) {
                octal.push(digit);
                cursor.next();
            }
            u8::from_str_radix(&octal, 8).ok()
        }
        _ => None,
    }
}

struct Cursor<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    place: Place,
}

impl Cursor<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.rest.next()?;
        if character == '\n' {
            self.place.line += 1;
            self.place.column = 1;
        } else {
            self.place.column += 1;
        }
        Some(character)
    }

    fn next_on_this_line(&mut self) -> Option<char> {
        self.peek().filter(|character| *character != '\n')?;
        self.next()
    }

    /// Past blank lines and comments; false at the end of the text.
    fn find_next_word(&mut self) -> bool {
        while let Some(character) = self.peek() {
            match character {
                '#' => self.skip_line(),
                _ if character.is_whitespace() || character == '\0' => _ = self.next(),
                _ => return true,
            }
        }
        false
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|character| character != '\n') {}
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(character) = self.peek().filter(|c| !c.is_whitespace() && *c != '#') {
            if character == '\\' && self.at_continuation() {
                break;
            }
            word.push(character);
            self.next();
        }
        word
    }

    /// Whether `\` is the last character of this line.
    fn at_continuation(&self) -> bool {
        let mut ahead = self.rest.clone();
        ahead.next();
        matches!((ahead.next(), ahead.next()), (Some('\n'), _) | (Some('\r'), Some('\n')))
    }

    fn skip_blanks(&mut self) {
        while let Some(character) = self.peek() {
            match character {
                '\\' if self.at_continuation() => self.skip_line(),
                '\n' => return,
                _ if character.is_whitespace() => _ = self.next(),
                _ => return,
            }
        }
    }

    /// A value without quotes: to the end of the line, or of the last line that it goes on to.
    /// Comments within a continued value are passed over, line end and all.
    fn plain_value(&mut self) -> String {
        let (mut value, mut continued) = (String::new(), false);
        while let Some(character) = self.peek() {
            match character {
                '\n' => break,
                '#' if continued => self.skip_line(),
                '#' => break,
                '\\' if self.at_continuation() => {
                    continued = true;
                    self.skip_line();
                }
                _ => {
                    value.push(character);
                    self.next();
                }
            }
        }
        self.skip_line();
        value.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let (lines, errors) = read(text);
        assert_eq!(errors, []);
        lines.into_iter().map(|line| (line.name, line.value)).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn comments_and_blank_lines_say_nothing() {
        let text = "# head\n\n  Nickname  a b \t# tail\n\t#x\nORPort 1#2\nDirCache";
        let wanted = [pair("Nickname", "a b"), pair("ORPort", "1"), pair("DirCache", "")];
        assert_eq!(pairs(text), wanted);
    }

    #[test]
    fn a_backslash_goes_on_with_the_next_line_and_over_comments() {
        let text = "MyFamily A, \\\n# the second\n B,\\\nC\nNickname x\nContactInfo \\\r\n me";
        let wanted = [
            pair("MyFamily", "A,  B,C"),
            pair("Nickname", "x"),
            pair("ContactInfo", "me"),
        ];
        assert_eq!(pairs(text), wanted);
    }

    #[test]
    fn quotes_keep_what_a_bare_value_cannot() {
        let text = r#"ContactInfo "a # \"b\" \x41\102\t" # c"#;
        assert_eq!(pairs(text), [pair("ContactInfo", "a # \"b\" AB\t")]);
        assert_eq!(pairs(r#"ContactInfo "\xc3\xa4""#), [pair("ContactInfo", "ä")]);
    }

    #[test]
    fn a_bad_quote_is_told_where_it_stands_and_the_rest_is_still_read() {
        let (lines, errors) = read("Nickname \"a\" b\nContactInfo \"open\nA \"\\q\"\nB \"\\xff\"\nDirCache 1");
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "line 1, column 14: nothing may follow the closing quote",
                "line 2, column 13: this quote is never closed",
                "line 3, column 4: this escape is unknown",
                "line 4, column 3: expected UTF-8",
            ]
        );
        assert_eq!(lines.last().unwrap().name, "DirCache");
    }

    #[test]
    fn plus_and_slash_belong_to_no_name() {
        let (lines, _) = read("+Log notice stdout\n/Log");
        let doings: Vec<(Doing, &str, usize)> = lines
            .iter()
            .map(|line| (line.doing, line.name.as_str(), line.name_at.column))
            .collect();
        assert_eq!(doings, [(Doing::Append, "Log", 2), (Doing::Clear, "Log", 2)]);
    }
}
