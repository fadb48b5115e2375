package storetest_test

import (
	"testing"

	"sallyport/shared/store/storetest"
)

func TestMemory(t *testing.T) { storetest.Contract(t, storetest.NewMemory()) }

func TestApprovalsMemory(t *testing.T) { storetest.ApprovalsContract(t, storetest.NewApprovals()) }
