"""The door for crash: its own remote-daemon protocol, in the form in which it takes the other end for a paused machine.

requests, answers   pure: what crash says and hears
session             pure: what one crash is answered; which memory that takes is a value
quick               the read that is made a hundred thousand times, by a shorter way
stops, stacks       where each CPU stopped, as a local crash finds it
door                the shell: a port, a thread for each crash
analysis            one crash on this terminal, through whichever door can be had
launch              which crash, and what it is started with
"""
