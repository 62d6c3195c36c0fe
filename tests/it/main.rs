//! Whole-system tests: the real binary, real stages, real services.

mod cli;
mod crash;
mod demo;
mod e2e;
mod rules;
mod support;
