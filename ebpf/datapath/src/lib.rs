//! Packet logic with no kernel in it, generic over maps and packet access.
