//! What can be seen of a model's latents: how the posterior of a text forms, what each latent costs, saves and says, and
//! where the posteriors of a corpus lie. Plain values, which serialise to one JSON document, and a page
//! that shows it.

mod change;
mod document;
mod explorer;
mod facts;
mod map;
mod page;
mod tokens;

pub use change::{Change, Changed};
pub use document::{About, Between, Document, Wanted, demo_texts, held_out};
pub use explorer::{Exploration, Explorer, Frame, Ledger};
pub use facts::Carried;
pub use map::{Grid, Map, Place, Posteriors, principal_axes};
pub use page::page;
pub use tokens::{Candidate, Predicted, Token};
