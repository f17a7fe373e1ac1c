//! The rules that the API server checks at apply. Each message says what to write instead.

use kube::core::Rule;

use crate::names::{NICKNAME_STEM_MAX, SET_NAME_LENGTH_MAX};

pub(super) fn set_name() -> Rule {
    Rule::new(format!(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= {SET_NAME_LENGTH_MAX}"
    ))
    .message(&*format!(
        "metadata.name: begin with a letter and use only lower-case letters, digits and '-', at most {SET_NAME_LENGTH_MAX}: \
         the relays' names have a number behind it"
    ))
}

pub(super) fn nickname_has_room() -> Rule {
    Rule::new(format!("size(self.nickname) <= {NICKNAME_STEM_MAX}"))
        .field_path(".nickname")
        .message(&*format!(
            "use at most {NICKNAME_STEM_MAX} letters or digits: each relay's number is put behind it"
        ))
}

pub(super) fn no_shared_address() -> Rule {
    Rule::new("self.address.source != 'Static'")
        .field_path(".address")
        .message("relays of a set cannot share one address and port: set source to Pod, or make single Relays")
}

pub(super) fn no_deletion() -> Rule {
    Rule::new("!has(self.deletionPolicy) || self.deletionPolicy != 'Delete'")
        .field_path(".deletionPolicy")
        .message("remove it: the destruction of an identity is confirmed on its own Relay, by its fingerprint")
}
