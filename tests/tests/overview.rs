//! All loops of a server at once, as dashboards and `loopwright top` see them.

mod overview {
    mod board;
    mod shown;
    mod told;
}
