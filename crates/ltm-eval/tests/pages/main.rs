//! Charts and report pages from outside, read as a reader sees them: numbers by the axes of a chart and the cells of a
//! table.
#![cfg(feature = "charts")]

mod charts;
mod lines;
mod picture;
mod runs;
mod sweep;
mod tables;
