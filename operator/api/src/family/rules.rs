//! The rules that the API server checks at apply. Each message says what to write instead.

use kube::core::Rule;

use crate::days::cel_between;
use crate::names::RELAY_NAME_LENGTH_MAX;

pub(super) fn family_name() -> Rule {
    Rule::new(format!(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= {RELAY_NAME_LENGTH_MAX}"
    ))
    .message(&*format!(
        "metadata.name: begin with a letter and use only lower-case letters, digits and '-', at most {RELAY_NAME_LENGTH_MAX}"
    ))
}

pub(super) fn generation_grows() -> Rule {
    Rule::new("self == oldSelf || self == oldSelf + 1").message("raise it by one for another key; it cannot go back")
}

pub(super) fn overlap() -> Rule {
    Rule::new(cel_between("self", 2, 90)).message("use 2d to 90d")
}

pub(super) fn rsa_fingerprint() -> Rule {
    Rule::new("self.matches('^[0-9A-Fa-f]{40}$')").message("write 40 hexadecimal digits, without blanks or $")
}

pub(super) fn ed25519_id() -> Rule {
    Rule::new("self.matches('^[A-Za-z0-9+/]{43}$')").message("write 43 characters of base64, as in fingerprint-ed25519")
}

pub(super) fn email() -> Rule {
    Rule::new(r"self.matches('^[^@\\s\\pC]+@[^@\\s\\pC]+$')")
        .message("write an e-mail address, for example tor@example.org")
}

pub(super) fn url() -> Rule {
    Rule::new("isURL(self) && url(self).getScheme() == 'https' && url(self).getHost() != '' && !self.matches('[ ?#]')")
        .message("write an https address without query, for example https://example.org")
}

pub(super) fn pgp() -> Rule {
    Rule::new("self.matches('^[0-9A-Fa-f]{40}$')")
        .message("write the key's fingerprint: 40 hexadecimal digits, without blanks")
}

pub(super) fn no_blanks() -> Rule {
    Rule::new(r"self.matches('^[^\\s\\pC]+$')").message("write one word without blanks, for example hoster.example")
}
