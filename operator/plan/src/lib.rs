//! Facts in, plan out. Pure: no client, no clock, no async.
//!
//! ```text
//! Observed --validate--> Accepted --desired--> objects --decide--> Plan { status, steps }
//! ```
//!
//! The status speaks of what was seen, never of what is planned. Steps stand in the order in which they must be done,
//! and every prefix of them leaves a state from which the next round goes on: the operator may die between any two.

pub mod decide;
pub mod desired;
pub mod difference;
pub mod family;
pub mod farewell;
pub mod fence;
pub mod hurdles;
pub mod identity;
pub mod network;
pub mod observed;
pub mod overrides;
pub mod pool;
pub mod set;
pub mod settings;
pub mod status;
pub mod validate;

pub use decide::{Plan, Step, decide};
pub use family::{FamilyObserved, FamilyPlan, FamilyStep, decide_family};
pub use hurdles::Hurdle;
pub use observed::{FamilySeen, NetworkText, Observed, PoolSeen, Seen};
pub use pool::{PoolObserved, decide_pool};
pub use set::{SetObserved, SetPlan, SetStep, decide_set};
pub use settings::Settings;
