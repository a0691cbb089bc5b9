package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vswitch/vswitch/port"
)

// Event is something that happened to the switch.
type Event struct {
	// Seq counts the events of one run of the daemon, from 1. Epoch names the run.
	Seq   uint64    `json:"seq"`
	Epoch string    `json:"epoch"`
	Time  time.Time `json:"time"`
	Type  string    `json:"type"` // see EventTypes

	Port   string   `json:"port,omitempty"`
	From   string   `json:"from,omitempty"`   // state before, or the port that a station was behind
	To     string   `json:"to,omitempty"`     // state now
	Reason string   `json:"reason,omitempty"` // why, in words
	MAC    port.MAC `json:"mac,omitzero"`
	VLAN   uint16   `json:"vlan,omitempty"`
	Keys   []string `json:"keys,omitempty"`  // settings that were changed
	Count  uint64   `json:"count,omitempty"` // how many events are missing, changes were made, or frames were dropped

	Address    string   `json:"address,omitempty"`    // the IP address that a station has or claims
	ClaimedMAC port.MAC `json:"claimed_mac,omitzero"` // that a packet of ARP or neighbour discovery names
}

// Types of events.
const (
	EventDaemonStarted  = "daemon.started"
	EventDaemonStopping = "daemon.stopping"
	EventSwitchChanged  = "switch.changed"
	EventConfigApplied  = "config.applied"
	EventConfigExpired  = "config.expired"
	EventConfigKept     = "config.confirmed"
	EventPortAdded      = "port.added"
	EventPortChanged    = "port.changed"
	EventPortRemoved    = "port.removed"
	EventPortState      = "port.state"
	EventPortDisabled   = "port.disabled"
	EventPortRecovered  = "port.recovered"
	EventFDBMoved       = "fdb.moved"
	EventFDBFlapping    = "fdb.flapping"
	EventFDBOwnAddress  = "fdb.own_address"
	EventSTP            = "stp.changed"
	EventGuardViolation = "guard.violation"
	EventGuardBound     = "guard.bound"
	EventGuardChanged   = "guard.changed"
	EventGuardRemoved   = "guard.removed"
	EventGuardRefused   = "guard.refused"
	EventGuardConflict  = "guard.conflict"
	EventGuardServer    = "guard.server"
	EventLimited        = "limited"
	EventLost           = "lost"
)

// EventType describes a type of events.
type EventType struct {
	Name  string
	Words string // what happened
}

// EventTypes lists the types of events. The part before the dot is their family.
var EventTypes = []EventType{
	{EventDaemonStarted, "the daemon runs; its ports are restored"},
	{EventDaemonStopping, "the daemon is about to end"},
	{EventSwitchChanged, "settings of the switch were changed: keys"},
	{EventConfigApplied, "a configuration was applied, or changes were taken back: count changes, reason"},
	{EventConfigExpired, "a configuration was not confirmed in time and is taken back: reason"},
	{EventConfigKept, "a configuration was confirmed: reason"},
	{EventPortAdded, "a port was added"},
	{EventPortChanged, "settings of a port were changed: keys"},
	{EventPortRemoved, "a port was removed"},
	{EventPortState, "the state of a port changed: from, to, reason"},
	{EventPortDisabled, "a guard error-disabled a port: reason"},
	{EventPortRecovered, "an error-disabled port recovered"},
	{EventFDBMoved, "a station was learned behind another port: mac, vlan, from"},
	{EventFDBFlapping, "a station moves back and forth between two ports: mac, vlan, from"},
	{EventFDBOwnAddress, "a frame from the switch's own address came in by a port: vlan"},
	{EventSTP, "the spanning tree changed: reason"},
	{EventGuardViolation, "a guarded port's frames were dropped within a second: reason, mac, vlan, address, claimed_mac, count"},
	{EventGuardBound, "a guarded port got an address: mac, vlan, address, reason"},
	{EventGuardChanged, "a guarded port has an address from elsewhere than before: mac, vlan, address, reason"},
	{EventGuardRemoved, "a guarded port lost an address: mac, vlan, address, reason"},
	{EventGuardRefused, "a guarded port did not get an address: mac, vlan, address, reason"},
	{EventGuardConflict, "two ports claim an address: mac, vlan, address, from, reason"},
	{EventGuardServer, "a DHCP server was heard for the first time: mac, vlan, address"},
	{EventLimited, "more events of one kind happened than are told apart: count, reason"},
	{EventLost, "the reader was too slow: count events that it does not get"},
}

// EventFilter selects events.
type EventFilter struct {
	Port  string   // empty: all
	Types []string // types or families; empty: all
}

// EventFamilies returns the families of the types, each once.
func EventFamilies() (all []string) {
	for _, t := range EventTypes {
		if family, _, ok := strings.Cut(t.Name, "."); ok && !slices.Contains(all, family) {
			all = append(all, family)
		}
	}
	return all
}

// Match reports whether the filter selects an event. It always selects lost ones.
func (f *EventFilter) Match(e *Event) bool {
	if e.Type == EventLost {
		return true
	}
	if f.Port != "" && e.Port != f.Port && (e.MAC == 0 || e.From != f.Port) {
		return false
	}
	family, _, _ := strings.Cut(e.Type, ".")
	return len(f.Types) == 0 || slices.Contains(f.Types, e.Type) || slices.Contains(f.Types, family)
}

// Cursor is a place in the sequence of events: after the event Seq of an epoch. An empty Epoch
// is the current one.
type Cursor struct {
	Epoch string
	Seq   uint64
}

// ID returns the cursor after an event, as text.
func (e *Event) ID() string { return Cursor{e.Epoch, e.Seq}.String() }

func (c Cursor) String() string {
	if c.Epoch == "" {
		return strconv.FormatUint(c.Seq, 10)
	}
	return c.Epoch + "-" + strconv.FormatUint(c.Seq, 10)
}

// ParseCursor reads SEQ or EPOCH-SEQ.
func ParseCursor(text string) (c Cursor, err error) {
	epoch, seq, ok := strings.Cut(text, "-")
	if !ok {
		epoch, seq = "", text
	}
	c.Epoch = epoch
	if c.Seq, err = strconv.ParseUint(seq, 10, 64); err != nil || ok && epoch == "" {
		return c, fmt.Errorf("%q is no place in the events; write the seq of an event, EPOCH-SEQ, or a time such as 5m", text)
	}
	return c, nil
}
