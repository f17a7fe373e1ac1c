//! A relay's nickname.

use std::fmt;
use std::str::FromStr;

/// 1 to 19 ASCII letters or digits (dir-spec, "nickname"). Past `from_str` nobody checks again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nickname(String);

/// Why a text is no nickname.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNickname {
    /// Something other than an ASCII letter or digit.
    #[error("a nickname has only the letters a to z and A to Z and digits, not {0:?}")]
    Character(char),
    /// Empty, or longer than 19 characters.
    #[error("a nickname has 1 to 19 characters, not {0}")]
    Length(usize),
}

impl Nickname {
    /// The name of a relay whose owner gave none (C tor's own default).
    pub fn unnamed() -> Self {
        Self("Unnamed".to_owned())
    }

    /// The nickname as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Nickname {
    type Err = BadNickname;
    fn from_str(text: &str) -> Result<Self, BadNickname> {
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_alphanumeric()) {
            return Err(BadNickname::Character(odd));
        }
        match text.len() {
            1..=19 => Ok(Self(text.to_owned())),
            length => Err(BadNickname::Length(length)),
        }
    }
}

impl fmt::Display for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nickname_is_short_and_plain() {
        assert_eq!("relay1".parse::<Nickname>().unwrap().as_str(), "relay1");
        assert_eq!("".parse::<Nickname>(), Err(BadNickname::Length(0)));
        assert_eq!("a".repeat(20).parse::<Nickname>(), Err(BadNickname::Length(20)));
        assert_eq!("my-relay".parse::<Nickname>(), Err(BadNickname::Character('-')));
        assert_eq!("größe".parse::<Nickname>(), Err(BadNickname::Character('ö')));
    }
}
