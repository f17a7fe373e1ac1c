//! The ContactInfo of a family's members (ContactInfo Information Sharing Specification, version 3), made from the live spec
//! so that it cannot say what is no longer so.
//!
//! Nothing in it depends on how many members there are: adding a relay changes no other's torrc.

use operator_api::{Custody, FamilyContact, Relay};

use crate::identity::custody_of;

/// `email:tor[]example.org url:https://example.org proof:uri-familyid-ed25519 ... ciissversion:3`
#[must_use]
pub fn contact_line(contact: &FamilyContact, relay: &Relay) -> String {
    let address = |address: &String| address.replace('@', "[]");
    let custody = match custody_of(relay) {
        Custody::Operator => "y",
        Custody::InPod => "n",
    };
    let rate = relay
        .spec
        .bandwidth
        .as_ref()
        .map(|bandwidth| bandwidth.rate.bytes_per_second());
    let megabits = rate.map(|rate| (rate / 125_000).max(1).to_string());
    let fields = [
        ("email", Some(address(&contact.email))),
        ("url", contact.url.clone()),
        ("proof", contact.url.as_ref().map(|_| "uri-familyid-ed25519".to_owned())),
        ("pgp", contact.pgp.clone().map(|pgp| pgp.to_uppercase())),
        ("abuse", contact.abuse.as_ref().map(address)),
        ("hoster", contact.hoster.clone()),
        ("uplinkbw", megabits),
        ("offlinemasterkey", Some(custody.to_owned())),
        (
            "signingkeylifetime",
            Some(relay.spec.identity.signing_key_lifetime.count().to_string()),
        ),
        ("ciissversion", Some("3".to_owned())),
    ];
    let said = fields
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}:{}", value?)));
    said.collect::<Vec<_>>().join(" ")
}
