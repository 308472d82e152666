//! Tool calls that wait for a person, from outside: what nobody can tell is asked, what may repeat it is
//! held, an answer counts once, and no crash makes a wait be forgotten.

mod approvals {
    mod asked;
    mod held;
    mod kept;
    mod shown;
    mod talk;
}
