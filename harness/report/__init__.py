"""Writes results for people and for programs; decides nothing."""
