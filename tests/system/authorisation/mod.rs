//! Who may do what, asked of running services: every route with every kind of credential, tenants,
//! tickets, what is open when a token ends, how much one may ask for, and where secrets show.

mod abuse;
mod audit;
mod bodies;
mod budgets;
mod bus_life;
mod bus_matrix;
mod canary;
mod compose;
mod database_roles;
mod inputs;
mod issuer;
mod live;
mod matrix;
mod revocations;
mod session;
mod support;
mod tenants;
mod titles;
