//! Registries and forges on loopback, as far as their real clients need them: each can be read
//! from and written to, and whatever reaches one is kept by its [`Origin`](super::Origin).

mod cargo;
mod github;
mod npm;
mod oci;
mod pypi;

pub(crate) use cargo::{cargo, cargo_registry};
pub(crate) use github::github;
pub(crate) use npm::{npm_package, npm_registry, npm_registry_of};
pub(crate) use oci::{oci_image, oci_registry};
pub(crate) use pypi::{pypi_registry, pypi_registry_of, wheel};
