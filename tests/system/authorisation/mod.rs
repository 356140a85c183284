//! Who may do what, asked of running services: every route with every kind of credential, tenants,
//! tickets, and what is open when a token ends.

mod audit;
mod bus_life;
mod bus_matrix;
mod compose;
mod database_roles;
mod live;
mod matrix;
mod session;
mod support;
mod tenants;
