//! Who may reach what, from outside: binds, tokens, roles, namespaces, endpoints of sidecars.

mod security {
    mod doors;
    mod namespaces;
    mod roles;
    mod tokens;
}
