//! Whole-system tests: the real binary, real stages, real services.

mod cli;
mod crash;
mod demo;
mod disorder;
mod e2e;
mod flink;
mod kills;
mod lateness;
mod reload;
mod rules;
mod state;
mod support;
mod truth;
