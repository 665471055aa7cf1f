#!/bin/sh
# shellcheck disable=SC2154 # set by udhcpc
# What busybox's udhcpc runs with a lease.
case $1 in
deconfig) ip link set "$interface" up ;;
bound) ip addr add "$ip/${mask:-24}" dev "$interface" ;;
esac
