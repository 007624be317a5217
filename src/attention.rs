//! When people's attention is asked for: what is told at once, what is folded, what waits because
//! much was said already, and what will soon expire. Pure: what was told before and `now` in, a
//! decision out. Must not know channels or how messages are kept.

mod certificate;
mod expiry;
mod fold;

pub use certificate::ends;
pub use expiry::{Warned, warn};
pub use fold::{Before, Folded, Portion, fold, portion};
