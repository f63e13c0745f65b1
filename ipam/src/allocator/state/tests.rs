//! What the allocator promises, case by case.

use super::super::owner::Owner;
use super::*;

fn state(cidrs: &[&str], cool_down: u32) -> State {
    let mut state = State::new(Vec::new(), cool_down);
    let cidrs: Vec<IpNetwork> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
    state.set_pools(&cidrs).unwrap();
    state
}

fn key(n: u32) -> Key {
    Owner::new(n.to_string(), "eth0").key()
}

fn give(state: &mut State, n: u32, now: u32) -> Vec<String> {
    state.assign(key(n), &[], now).unwrap();
    state.lookup(key(n)).iter().map(IpAddr::to_string).collect()
}

#[test]
fn an_owner_gets_one_address_of_each_family_and_keeps_them() {
    let mut state = state(&["10.0.0.0/24", "fd00::/64"], 0);
    assert_eq!(give(&mut state, 1, 0), ["10.0.0.1", "fd00::1"]);
    assert_eq!(give(&mut state, 2, 0), ["10.0.0.2", "fd00::2"]);
    assert!(state.assign(key(1), &[], 9).unwrap().is_none());
    assert_eq!(give(&mut state, 1, 9), ["10.0.0.1", "fd00::1"]);
}

#[test]
fn freed_addresses_return_after_the_cool_down_oldest_first() {
    let mut state = state(&["10.0.0.0/29"], 30);
    (1..=6).for_each(|n| drop(give(&mut state, n, 0)));
    state.release(key(4), 100).unwrap();
    state.release(key(2), 110).unwrap();
    let refusal = state.assign(key(7), &[], 129).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "no IPv4 address is free in 10.0.0.0/29: 4 used, 2 cooling down"
    );
    assert_eq!(give(&mut state, 7, 130), ["10.0.0.4"]);
    assert!(state.assign(key(8), &[], 139).is_err());
    assert_eq!(give(&mut state, 8, 140), ["10.0.0.2"]);
}

#[test]
fn when_one_family_is_exhausted_the_other_is_put_back() {
    let mut state = state(&["10.0.0.0/24", "fd00::1/128"], 0);
    assert_eq!(give(&mut state, 1, 0), ["10.0.0.1", "fd00::1"]);
    assert!(state.assign(key(2), &[], 0).is_err());
    assert_eq!(state.usage(0)[0].used, 1);
    state.release(key(1), 0).unwrap();
    assert_eq!(give(&mut state, 2, 0), ["10.0.0.2", "fd00::1"]);
}

#[test]
fn a_second_pool_is_used_when_the_first_is_full() {
    let mut state = state(&["10.0.0.0/31", "10.0.9.0/31"], 0);
    let given: Vec<_> = (1..=4).flat_map(|n| give(&mut state, n, 0)).collect();
    assert_eq!(given, ["10.0.0.0", "10.0.0.1", "10.0.9.0", "10.0.9.1"]);
}

#[test]
fn a_pool_that_is_taken_away_keeps_its_owners_and_gives_no_more() {
    let mut state = state(&["10.0.0.0/24"], 0);
    give(&mut state, 1, 0);
    state.set_pools(&["10.1.0.0/24".parse().unwrap()]).unwrap();
    assert_eq!(give(&mut state, 2, 0), ["10.1.0.1"]);
    assert_eq!(give(&mut state, 1, 0), ["10.0.0.1"]);
    assert!(state.release(key(1), 0).is_some());
    assert_eq!(give(&mut state, 3, 0), ["10.1.0.2"]);
}

#[test]
fn fixed_addresses_are_given_when_free_and_never_again_by_chance() {
    let mut state = state(&["10.0.0.0/29"], 30);
    let fixed: [IpAddr; 1] = ["10.0.0.2".parse().unwrap()];
    state.assign(key(1), &fixed, 0).unwrap();
    let taken = state.assign(key(2), &fixed, 0).unwrap_err();
    assert_eq!(taken.to_string(), "address 10.0.0.2 is in use");
    assert_eq!(give(&mut state, 3, 0), ["10.0.0.1"]);
    assert_eq!(give(&mut state, 4, 0), ["10.0.0.3"]);
    state.release(key(1), 10).unwrap();
    let cooling = state.assign(key(2), &fixed, 20).unwrap_err();
    assert_eq!(cooling.to_string(), "address 10.0.0.2 is cooling down");
    assert_eq!(give(&mut state, 5, 20), ["10.0.0.4"]);
    state.assign(key(2), &fixed, 40).unwrap();
    let outside = ["10.9.9.9".parse().unwrap()];
    assert!(matches!(
        state.assign(key(6), &outside, 40),
        Err(Refusal::NotInPool(_))
    ));
    let broadcast = ["10.0.0.7".parse().unwrap()];
    assert!(matches!(
        state.assign(key(6), &broadcast, 40),
        Err(Refusal::Unavailable { .. })
    ));
}

#[test]
fn without_a_pool_nothing_is_assigned() {
    assert_eq!(
        State::default().assign(key(1), &[], 0).unwrap_err(),
        Refusal::NoPool
    );
}

#[test]
fn a_change_of_pools_can_be_undone() {
    let mut state = state(&["10.0.0.0/24"], 0);
    let before: Vec<_> = state.pools().collect();
    let next = ["10.1.0.0/24".parse().unwrap()];
    let pools = state.set_pools(&next).unwrap().unwrap();
    let owner = state.assign(key(1), &[], 0).unwrap().unwrap();
    assert!(state.set_pools(&next).unwrap().is_none());
    state.undo(owner);
    state.undo(pools);
    assert_eq!(state.pools().collect::<Vec<_>>(), before);
    assert_eq!(give(&mut state, 2, 0), ["10.0.0.1"]);
}

#[test]
fn the_same_cidr_twice_is_one_pool_and_host_bits_do_not_matter() {
    let state = state(&["10.0.0.7/24", "10.0.0.0/24"], 0);
    assert_eq!(state.pools().count(), 1);
}

#[test]
fn a_million_owners_cost_less_than_32_bytes_an_address() {
    let mut state = state(&["10.0.0.0/12"], 0);
    for n in 0..1_000_000 {
        state.assign(key(n), &[], 0).unwrap();
    }
    let each = state.memory() / state.owner_count();
    assert!(each <= 32, "{each} bytes");
}
