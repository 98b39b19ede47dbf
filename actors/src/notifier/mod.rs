//! NotifierActor: everyone who must learn of a new main. Peers, RADIUS and other dependents, hooks.

mod actor;

pub use actor::NotifierActor;
