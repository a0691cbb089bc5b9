// Package account finds users and groups of the host by name or number. Errors are one
// line and say what to do.
package account

import (
	"fmt"
	"os/user"
	"strconv"
)

// User returns the number of a user that is given by name or number.
func User(s string) (int, error) {
	return number(s, func() (string, error) {
		u, err := user.Lookup(s)
		if err != nil {
			return "", fmt.Errorf("there is no user %q; name one of the host's users, or a number", s)
		}
		return u.Uid, nil
	})
}

// Group returns the number of a group that is given by name or number.
func Group(s string) (int, error) {
	return number(s, func() (string, error) {
		g, err := user.LookupGroup(s)
		if err != nil {
			return "", fmt.Errorf("there is no group %q; name one of the host's groups, or a number", s)
		}
		return g.Gid, nil
	})
}

// number returns the number that s is or that lookup finds for it.
func number(s string, lookup func() (string, error)) (int, error) {
	// The highest number stands for none (chown(2)).
	if n, err := strconv.ParseUint(s, 10, 32); err == nil && n != 1<<32-1 {
		return int(n), nil
	}
	id, err := lookup()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(id)
}
