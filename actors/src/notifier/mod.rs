//! NotifierActor: notifies peers, RADIUS and other dependents, and hooks of a new main.

mod actor;

pub use actor::NotifierActor;
