package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// Config is what a switch should have: its ports, settings, static entries and mirrors, as
// one JSON object. openapi.yaml describes it.
type Config struct{ json.RawMessage }

// Which of the items that a configuration does not name are removed.
const (
	PruneNone    = ""        // none
	PruneApplied = "applied" // those that an earlier configuration named
	PruneAll     = "all"     // all
)

// ApplyConfig requests that a switch becomes as a configuration says. All of it is done, or
// none.
type ApplyConfig struct {
	Config Config `json:"config"`
	By     string `json:"by,omitempty"` // who or what asks, for the history: the file's name

	DryRun bool   `json:"dry_run,omitempty"` // change nothing
	Prune  string `json:"prune,omitempty"`   // PruneNone, PruneApplied or PruneAll

	// AllowReplace allows ports to be removed and made again where a setting cannot change.
	AllowReplace bool `json:"allow_replace,omitempty"`

	// Force removes and replaces ports even while machines are attached to them.
	Force bool `json:"force,omitempty"`

	// ConfirmS is the number of seconds after which the change is taken back unless
	// ConfirmConfig is called; 0: it stays.
	ConfirmS int64 `json:"confirm_s,omitempty"`

	// Plan is the plan that an earlier dry run answered: nothing is done if it would be
	// another one by now. Empty: any.
	Plan string `json:"plan,omitempty"`
}

// AppliedConfig is what was done, or would be in a dry run.
type AppliedConfig struct {
	Steps   []ConfigStep   `json:"steps"`             // in order; none: it is as the configuration says already
	Plan    string         `json:"plan"`              // identifies the steps
	Config  Config         `json:"config"`            // of the switch afterwards
	Notes   []string       `json:"notes,omitempty"`   // what deserves attention, such as a port that waits for its device
	Pending *PendingConfig `json:"pending,omitempty"` // nil: nothing waits for a confirmation
}

// ConfigStep is one change.
type ConfigStep struct {
	Change string `json:"change"` // add, set, replace or remove
	What   string `json:"what"`   // such as "port vm0"
	How    string `json:"how"`    // in words
}

// PendingConfig is a change that waits for its confirmation.
type PendingConfig struct {
	By    string    `json:"by"`
	Until time.Time `json:"until"` // then it is taken back
}

// ConfigChange is an entry of the history.
type ConfigChange struct {
	Number int          `json:"number"`
	Time   time.Time    `json:"time"`
	By     string       `json:"by"`
	Steps  []ConfigStep `json:"steps"`
}

// RollbackConfig requests that changes of the history are taken back.
type RollbackConfig struct {
	To int `json:"to,omitempty"` // this one and all after it; 0: the pending one, else the last
}

// ConfigProblem is what is wrong with a part of a configuration.
type ConfigProblem struct {
	At      string `json:"at"` // such as ports/vm0
	Message string `json:"message"`
}

// Config returns the configuration of the switch.
func (c *Client) Config(ctx context.Context) (cfg Config, err error) {
	err = c.Do(ctx, http.MethodGet, "/v1/config", nil, &cfg)
	return cfg, err
}

// ApplyConfig makes the switch as a configuration says. It waits for as long as that takes.
func (c *Client) ApplyConfig(ctx context.Context, req ApplyConfig) (done AppliedConfig, err error) {
	err = c.patient().Do(ctx, http.MethodPost, "/v1/config", req, &done)
	return done, err
}

// ConfirmConfig keeps the pending change.
func (c *Client) ConfirmConfig(ctx context.Context) error {
	return c.Do(ctx, http.MethodPost, "/v1/config/confirm", nil, nil)
}

// RollbackConfig takes changes back.
func (c *Client) RollbackConfig(ctx context.Context, req RollbackConfig) (done AppliedConfig, err error) {
	err = c.patient().Do(ctx, http.MethodPost, "/v1/config/rollback", req, &done)
	return done, err
}

// ConfigHistory returns the last changes that configurations made, oldest first.
func (c *Client) ConfigHistory(ctx context.Context) (changes []ConfigChange, err error) {
	err = c.Do(ctx, http.MethodGet, "/v1/config/history", nil, &changes)
	return changes, err
}

// patient returns a client that waits for an answer without limit: a change of a thousand
// ports takes as long as the kernel needs for their devices.
func (c *Client) patient() *Client {
	return &Client{socket: c.socket, http: http.Client{Transport: c.http.Transport}}
}
