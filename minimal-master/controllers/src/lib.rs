//! Loops that move the cluster's actual state to the desired one.
