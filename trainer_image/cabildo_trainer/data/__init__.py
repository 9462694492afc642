"""Rows in, windows out. See the README of this folder."""
