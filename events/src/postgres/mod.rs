//! How PostgreSQL is asked, everywhere: sessions whose settings only we decide, and answers that cannot make us panic.
//!
//! ```text
//! Session::reading("interrex doctor") ─ open(login) ─> Client ─ rows(sql) ─> Row: every value as text, or an error
//! ```
//!
//! **Invariant:** no session to PostgreSQL is opened elsewhere (`clippy.toml` refuses it), and no function, operator, view or
//! type is found anywhere but in `pg_catalog` unless our SQL names its schema. Our sessions are a superuser's, and the owner of
//! any database may write into `public` and set defaults for every session there.

mod names;
mod rows;
mod session;

pub use self::{
    names::{bytes_of, conninfo_value, identifier, literal, shown},
    rows::{Answer, Row, rows},
    session::{Login, NotOpened, Session, pinned_for_libpq},
};
