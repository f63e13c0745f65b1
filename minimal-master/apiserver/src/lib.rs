//! The only door to the desired state: authentication, admission, REST, watch, and streaming to kubelets.
