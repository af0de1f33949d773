//! End to end: the real binary, real sockets, real files, real clients.

mod browser;
mod support;

mod alerts;
mod api;
mod campaign;
mod campaign_client;
mod campaign_http;
mod campaign_more;
mod campaign_refusals;
mod connector;
mod deliveries;
mod delivery_auth;
mod delivery_http;
mod delivery_live;
mod delivery_rows;
mod demo;
mod deploy;
mod destinations;
mod dist;
mod durability;
mod import;
mod paging;
mod privacy;
mod proof;
mod signing;
mod tidy;
mod told;
mod witness;
