//! The table of all targets.

mod cells;
mod certs;
mod circuits;
mod compression;
mod descriptor;
mod directory;
mod dns;
mod documents;
mod exit_policy;
mod key_files;
mod link;
mod onion_descriptor;
mod relay_messages;
mod text_files;

/// One door that bytes come in by.
pub struct Target {
    /// Its name: on the command line, and the folder of its corpus.
    pub name: &'static str,
    /// What is read, and what must hold.
    pub moral: &'static str,
    /// The longest input worth trying, in bytes.
    pub input_bytes_max: usize,
    /// How many changed inputs the test `replay` tries: about a second's worth without optimisation.
    pub changes_replayed: usize,
    /// Panics where something does not hold.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "cells",
        moral: "cells are found as they were written with every width of circuit id, and link cells' bodies come back",
        input_bytes_max: 2048,
        changes_replayed: 2000,
        run: cells::cells,
    },
    Target {
        name: "create_extend",
        moral: "CREATE2, CREATED2 and EXTEND2 come back as they were read",
        input_bytes_max: 520,
        changes_replayed: 2000,
        run: cells::create_extend,
    },
    Target {
        name: "relay_v0",
        moral: "relay messages in format 0, and what each of them holds",
        input_bytes_max: 509,
        changes_replayed: 2000,
        run: relay_messages::v0,
    },
    Target {
        name: "relay_v1",
        moral: "relay messages in format 1, and what each of them holds",
        input_bytes_max: 509,
        changes_replayed: 2000,
        run: relay_messages::v1,
    },
    Target {
        name: "certs",
        moral: "a CERTS cell put together of strangers' certificates proves nobody but their owners",
        input_bytes_max: 2048,
        changes_replayed: 60,
        run: certs::certs,
    },
    Target {
        name: "link",
        moral: "a whole link from VERSIONS to relay cells: nobody is a relay who has not proven it, and nothing is left over",
        input_bytes_max: 4096,
        changes_replayed: 100,
        run: link::link,
    },
    Target {
        name: "circuits",
        moral: "circuits and streams in any order: the client understands what it hears, and nothing is left over",
        input_bytes_max: 2048,
        changes_replayed: 100,
        run: circuits::circuits,
    },
    Target {
        name: "torrc",
        moral: "a torrc is read or refused with places that exist, and the same each time",
        input_bytes_max: 4096,
        changes_replayed: 300,
        run: text_files::torrc,
    },
    Target {
        name: "state_file",
        moral: "a state file keeps every line that it was read with",
        input_bytes_max: 4096,
        changes_replayed: 2000,
        run: text_files::state_file,
    },
    Target {
        name: "family",
        moral: "a family bundle comes back as it was read, and vouches only for whom it names",
        input_bytes_max: 4096,
        changes_replayed: 2000,
        run: text_files::family,
    },
    Target {
        name: "key_files",
        moral: "key files are refused or come back byte for byte",
        input_bytes_max: 4096,
        changes_replayed: 200,
        run: key_files::key_files,
    },
    Target {
        name: "exit_policy",
        moral: "a policy decides as its lines do, in force as in print",
        input_bytes_max: 2048,
        changes_replayed: 150,
        run: exit_policy::exit_policy,
    },
    Target {
        name: "onion_descriptor",
        moral: "an onion service's descriptor counts only as its service signed it",
        input_bytes_max: 4096,
        changes_replayed: 500,
        run: onion_descriptor::onion_descriptor,
    },
    Target {
        name: "dir_request",
        moral: "a directory request in any pieces gets one answer, and its memory is given back",
        input_bytes_max: 4096,
        changes_replayed: 500,
        run: directory::dir_request,
    },
    Target {
        name: "dir_response",
        moral: "a directory's answer is never longer than we asked for, and its words cannot forge a log",
        input_bytes_max: 4096,
        changes_replayed: 2000,
        run: directory::dir_response,
    },
    Target {
        name: "compression",
        moral: "what we pack comes back whole; what strangers pack stays within its bounds",
        input_bytes_max: 4096,
        changes_replayed: 100,
        run: compression::compression,
    },
    Target {
        name: "documents",
        moral: "consensuses, certificates and descriptors count only as they were signed",
        input_bytes_max: 4096,
        changes_replayed: 100,
        run: documents::documents,
    },
    Target {
        name: "consensus_diff",
        moral: "a diff leads to the consensus that it promises and nowhere else",
        input_bytes_max: 2048,
        changes_replayed: 100,
        run: documents::consensus_diffs,
    },
    Target {
        name: "descriptor",
        moral: "whatever a relay has to say of itself, strangers can read it",
        input_bytes_max: 1024,
        changes_replayed: 60,
        run: descriptor::descriptor,
    },
    Target {
        name: "dns",
        moral: "whoever asks is told once, and no question is asked twice at once",
        input_bytes_max: 2048,
        changes_replayed: 2000,
        run: dns::dns,
    },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
