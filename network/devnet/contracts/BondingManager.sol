// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import "./Managed.sol";

interface IBondedTokens {
    function createReward() external returns (uint256);
    function trustedTransferTokens(address to, uint256 amount) external;
}

/// The orchestrators' stake. Everybody bonds to oneself here, and keeps all fees and rewards.
contract BondingManager is Managed {
    uint256 private constant PERCENT_DIVISOR = 1_000_000;
    uint256 private constant NEVER = type(uint256).max;

    struct Transcoder {
        uint256 lastRewardRound;
        uint256 rewardCut;
        uint256 feeShare;
        uint256 lastActiveStakeUpdateRound;
        uint256 activationRound;
        uint256 deactivationRound;
        uint256 cumulativeRewards;
        uint256 cumulativeFees;
        uint256 lastFeeRound;
    }

    struct Delegator {
        uint256 bondedAmount;
        uint256 fees;
        address delegateAddress;
        uint256 startRound;
        uint256 lastClaimRound;
        uint256 nextUnbondingLockId;
        mapping(uint256 => UnbondingLock) locks;
    }

    struct UnbondingLock {
        uint256 amount;
        uint256 withdrawRound;
    }

    event TranscoderUpdate(address indexed transcoder, uint256 rewardCut, uint256 feeShare);
    event TranscoderActivated(address indexed transcoder, uint256 activationRound);
    event TranscoderDeactivated(address indexed transcoder, uint256 deactivationRound);
    event Reward(address indexed transcoder, uint256 amount);
    event Bond(
        address indexed newDelegate,
        address indexed oldDelegate,
        address indexed delegator,
        uint256 additionalAmount,
        uint256 bondedAmount
    );
    event Unbond(
        address indexed delegate,
        address indexed delegator,
        uint256 unbondingLockId,
        uint256 amount,
        uint256 withdrawRound
    );
    event WithdrawStake(
        address indexed delegator, uint256 unbondingLockId, uint256 amount, uint256 withdrawRound
    );
    event WithdrawFees(address indexed delegator, address recipient, uint256 amount);

    uint64 public unbondingPeriod = 7;
    uint256 public currentRoundTotalActiveStake;
    uint256 private maxSize;
    mapping(address => Transcoder) private transcoders;
    mapping(address => Delegator) private delegators;
    /// The pool for the next round, the largest stake first.
    address[] private pool;

    modifier onlyTicketBroker() {
        require(
            msg.sender == controller.getContract(keccak256("TicketBroker")),
            "caller must be TicketBroker"
        );
        _;
    }

    modifier onlyRoundsManager() {
        require(msg.sender == address(roundsManager()), "caller must be RoundsManager");
        _;
    }

    constructor(address _controller, uint256 _maxSize) Managed(_controller) {
        maxSize = _maxSize;
    }

    // What orchestrators do

    function bond(uint256 amount, address to) external whenSystemNotPaused whenRoundInitialized {
        require(to == msg.sender, "dev: self-bond only");
        Delegator storage delegator = delegators[msg.sender];
        require(amount > 0 || delegator.bondedAmount > 0, "delegation amount must be greater than 0");
        address oldDelegate = delegator.delegateAddress;
        if (delegator.bondedAmount == 0) {
            delegator.startRound = roundsManager().currentRound() + 1;
        }
        delegator.delegateAddress = to;
        delegator.bondedAmount += amount;
        delegator.lastClaimRound = roundsManager().currentRound();
        if (amount > 0) {
            token().transferFrom(msg.sender, address(minter()), amount);
        }
        enterPool(msg.sender);
        emit Bond(to, oldDelegate, msg.sender, amount, delegator.bondedAmount);
    }

    function unbond(uint256 amount) external whenSystemNotPaused whenRoundInitialized {
        Delegator storage delegator = delegators[msg.sender];
        require(delegator.bondedAmount > 0, "caller must be bonded");
        require(amount > 0, "unbond amount must be greater than 0");
        require(amount <= delegator.bondedAmount, "amount is greater than bonded amount");
        delegator.bondedAmount -= amount;
        uint256 withdrawRound = roundsManager().currentRound() + unbondingPeriod;
        uint256 lockId = delegator.nextUnbondingLockId++;
        delegator.locks[lockId] = UnbondingLock(amount, withdrawRound);
        if (delegator.bondedAmount == 0) {
            delegator.delegateAddress = address(0);
            delegator.startRound = 0;
            leavePool(msg.sender);
        } else {
            sortPool();
        }
        emit Unbond(msg.sender, msg.sender, lockId, amount, withdrawRound);
    }

    function withdrawStake(uint256 lockId) external whenSystemNotPaused whenRoundInitialized {
        UnbondingLock storage lock = delegators[msg.sender].locks[lockId];
        uint256 amount = lock.amount;
        uint256 withdrawRound = lock.withdrawRound;
        require(withdrawRound > 0, "invalid unbonding lock ID");
        require(
            withdrawRound <= roundsManager().currentRound(),
            "withdraw round must be before or equal to the current round"
        );
        delete delegators[msg.sender].locks[lockId];
        IBondedTokens(address(minter())).trustedTransferTokens(msg.sender, amount);
        emit WithdrawStake(msg.sender, lockId, amount, withdrawRound);
    }

    function transcoder(uint256 rewardCut, uint256 feeShare)
        external
        whenSystemNotPaused
        whenRoundInitialized
    {
        require(
            !roundsManager().currentRoundLocked(),
            "can't update transcoder params, current round is locked"
        );
        require(rewardCut <= PERCENT_DIVISOR, "invalid rewardCut percentage");
        require(feeShare <= PERCENT_DIVISOR, "invalid feeShare percentage");
        require(isRegisteredTranscoder(msg.sender), "transcoder must be registered");
        Transcoder storage one = transcoders[msg.sender];
        require(
            !isActiveTranscoder(msg.sender)
                || one.lastRewardRound == roundsManager().currentRound(),
            "caller can't be active or must have already called reward for the current round"
        );
        one.rewardCut = rewardCut;
        one.feeShare = feeShare;
        emit TranscoderUpdate(msg.sender, rewardCut, feeShare);
    }

    function reward() external whenSystemNotPaused whenRoundInitialized {
        Transcoder storage one = transcoders[msg.sender];
        uint256 round = roundsManager().currentRound();
        require(isActiveTranscoder(msg.sender), "caller must be an active transcoder");
        require(
            one.lastRewardRound != round, "caller has already called reward for the current round"
        );
        uint256 minted = IBondedTokens(address(minter())).createReward();
        one.lastRewardRound = round;
        one.cumulativeRewards += minted;
        delegators[msg.sender].bondedAmount += minted;
        sortPool();
        emit Reward(msg.sender, minted);
    }

    function withdrawFees(address payable recipient, uint256 amount)
        external
        whenSystemNotPaused
        whenRoundInitialized
    {
        require(recipient != address(0), "invalid recipient");
        Delegator storage delegator = delegators[msg.sender];
        require(delegator.fees >= amount, "insufficient fees to withdraw");
        delegator.fees -= amount;
        minter().trustedWithdrawETH(recipient, amount);
        emit WithdrawFees(msg.sender, recipient, amount);
    }

    // What the other contracts do

    function updateTranscoderWithFees(address recipient, uint256 fees, uint256 round)
        external
        whenSystemNotPaused
        onlyTicketBroker
    {
        require(isRegisteredTranscoder(recipient), "transcoder must be registered");
        transcoders[recipient].lastFeeRound = round;
        transcoders[recipient].cumulativeFees += fees;
        delegators[recipient].fees += fees;
    }

    function setCurrentRoundTotalActiveStake() external onlyRoundsManager {
        currentRoundTotalActiveStake = getTotalBonded();
    }

    // What can be asked

    function isActiveTranscoder(address addr) public view returns (bool) {
        uint256 round = roundsManager().currentRound();
        Transcoder storage one = transcoders[addr];
        return one.activationRound > 0 && one.activationRound <= round
            && round < one.deactivationRound;
    }

    function isRegisteredTranscoder(address addr) public view returns (bool) {
        Delegator storage delegator = delegators[addr];
        return delegator.delegateAddress == addr && delegator.bondedAmount > 0;
    }

    /// 0: not registered, 1: registered.
    function transcoderStatus(address addr) external view returns (uint8) {
        return isRegisteredTranscoder(addr) ? 1 : 0;
    }

    /// 0: pending, 1: bonded, 2: unbonded.
    function delegatorStatus(address addr) external view returns (uint8) {
        Delegator storage delegator = delegators[addr];
        if (delegator.bondedAmount == 0) return 2;
        return delegator.startRound > roundsManager().currentRound() ? 0 : 1;
    }

    function transcoderTotalStake(address addr) public view returns (uint256) {
        return delegators[addr].bondedAmount;
    }

    function pendingFees(address addr, uint256) external view returns (uint256) {
        return delegators[addr].fees;
    }

    function pendingStake(address addr, uint256) external view returns (uint256) {
        return delegators[addr].bondedAmount;
    }

    function getTranscoder(address addr)
        external
        view
        returns (
            uint256 lastRewardRound,
            uint256 rewardCut,
            uint256 feeShare,
            uint256 lastActiveStakeUpdateRound,
            uint256 activationRound,
            uint256 deactivationRound,
            uint256 activeCumulativeRewards,
            uint256 cumulativeRewards,
            uint256 cumulativeFees,
            uint256 lastFeeRound
        )
    {
        Transcoder storage one = transcoders[addr];
        lastRewardRound = one.lastRewardRound;
        rewardCut = one.rewardCut;
        feeShare = one.feeShare;
        lastActiveStakeUpdateRound = one.lastActiveStakeUpdateRound;
        activationRound = one.activationRound;
        deactivationRound = one.deactivationRound;
        activeCumulativeRewards = one.cumulativeRewards;
        cumulativeRewards = one.cumulativeRewards;
        cumulativeFees = one.cumulativeFees;
        lastFeeRound = one.lastFeeRound;
    }

    function getDelegator(address addr)
        external
        view
        returns (
            uint256 bondedAmount,
            uint256 fees,
            address delegateAddress,
            uint256 delegatedAmount,
            uint256 startRound,
            uint256 lastClaimRound,
            uint256 nextUnbondingLockId
        )
    {
        Delegator storage one = delegators[addr];
        bondedAmount = one.bondedAmount;
        fees = one.fees;
        delegateAddress = one.delegateAddress;
        delegatedAmount = one.bondedAmount;
        startRound = one.startRound;
        lastClaimRound = one.lastClaimRound;
        nextUnbondingLockId = one.nextUnbondingLockId;
    }

    function getDelegatorUnbondingLock(address addr, uint256 lockId)
        external
        view
        returns (uint256 amount, uint256 withdrawRound)
    {
        UnbondingLock storage lock = delegators[addr].locks[lockId];
        return (lock.amount, lock.withdrawRound);
    }

    function getTotalBonded() public view returns (uint256 total) {
        for (uint256 i = 0; i < pool.length; i++) {
            total += delegators[pool[i]].bondedAmount;
        }
    }

    function getTranscoderPoolMaxSize() external view returns (uint256) {
        return maxSize;
    }

    function getTranscoderPoolSize() external view returns (uint256) {
        return pool.length;
    }

    function getFirstTranscoderInPool() external view returns (address) {
        return pool.length == 0 ? address(0) : pool[0];
    }

    function getNextTranscoderInPool(address addr) external view returns (address) {
        for (uint256 i = 0; i + 1 < pool.length; i++) {
            if (pool[i] == addr) return pool[i + 1];
        }
        return address(0);
    }

    // The pool

    function enterPool(address addr) private {
        if (inPool(addr)) {
            sortPool();
            return;
        }
        uint256 nextRound = roundsManager().currentRound() + 1;
        if (pool.length == maxSize) {
            address last = pool[pool.length - 1];
            if (transcoderTotalStake(addr) <= transcoderTotalStake(last)) return;
            pool.pop();
            transcoders[last].deactivationRound = nextRound;
            emit TranscoderDeactivated(last, nextRound);
        }
        pool.push(addr);
        sortPool();
        Transcoder storage one = transcoders[addr];
        one.activationRound = nextRound;
        one.deactivationRound = NEVER;
        one.lastActiveStakeUpdateRound = nextRound;
        emit TranscoderActivated(addr, nextRound);
    }

    function leavePool(address addr) private {
        for (uint256 i = 0; i < pool.length; i++) {
            if (pool[i] != addr) continue;
            for (uint256 j = i; j + 1 < pool.length; j++) pool[j] = pool[j + 1];
            pool.pop();
            uint256 nextRound = roundsManager().currentRound() + 1;
            transcoders[addr].deactivationRound = nextRound;
            emit TranscoderDeactivated(addr, nextRound);
            return;
        }
    }

    function inPool(address addr) private view returns (bool) {
        for (uint256 i = 0; i < pool.length; i++) {
            if (pool[i] == addr) return true;
        }
        return false;
    }

    /// One stake changed at most since it was sorted last, and pools of a development chain are short.
    function sortPool() private {
        for (uint256 i = 1; i < pool.length; i++) {
            address moved = pool[i];
            uint256 stake = transcoderTotalStake(moved);
            uint256 j = i;
            while (j > 0 && transcoderTotalStake(pool[j - 1]) < stake) {
                pool[j] = pool[j - 1];
                j--;
            }
            pool[j] = moved;
        }
    }
}
