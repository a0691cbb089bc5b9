package feature

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/table"
)

// Command is a command of the command line. It runs in the user's process and calls the
// daemon; its flags, help and completion follow from these fields.
type Command struct {
	// Name is one word, or more for a command of a family, such as "guard list"; families may
	// nest. A family has a Command of its own, before the others and without Run, for its help.
	Name string

	// Usage is what it does, in a few words; Description tells all, with an example.
	Usage, Description string

	// Args names its arguments; one in brackets is optional. The last one takes several words,
	// joined by spaces, if it ends in dots: [FILTER...]. The shell completes PORT.
	Args []string

	// Flags is the zero value of a settings struct (see internal/setting); nil: no flags.
	Flags any

	// Check returns what is wrong with the arguments and flags of a call, for which the user
	// and not the daemon is to blame. It may be nil.
	Check func(*Call) error

	Run func(*Call) error
}

// ErrNegative ends a command with exit status 1 and without a message: it has printed its
// answer, which is no.
var ErrNegative = errors.New("the answer is no")

// Call is one call of a command.
type Call struct {
	Context context.Context
	Client  *api.Client
	Args    []string // one for each of Command.Args; empty if it is not given
	Flags   any      // of the type of Command.Flags
	Out     io.Writer
	Err     io.Writer // for what is no part of the answer
	JSON    bool      // whether the user wants JSON
}

// Show prints v as JSON if the user wants it, and otherwise as the table that print writes
// with table.Row.
func (c *Call) Show(v any, print func(io.Writer)) error {
	return table.Show(c.Out, c.JSON, v, print)
}

// StreamEnded returns the error of a stream that ends before its reader has all, broken off by err unless that is nil: the
// daemon ends, and the exit status is that of none. what names the content.
func StreamEnded(what string, err error) error {
	if err == nil {
		return fmt.Errorf("%w any more: it ended, and %s with it", api.ErrNoDaemon, what)
	}
	return fmt.Errorf("%w any more: %s broke off: %w", api.ErrNoDaemon, what, err)
}
