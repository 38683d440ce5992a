//! The side that tests clients: a scripted relay and a scripted target on loopback, one of each for every case.
