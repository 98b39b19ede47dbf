//! NotifierActor: everyone who must learn of a new main. Peers, RADIUS and other dependents, hooks.

mod actor;
pub mod dependents;
pub mod hooks;
pub mod peers;

pub use actor::NotifierActor;
